"""``python -m loadtest.bench``: all scenarios in turns, in units of a bare FastAPI route, beside the last run.

Each turn starts a server of its own and the bare route; each scenario follows a calibration on the latter.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loadtest.bench.calibration import calibrate
from loadtest.bench.compare import Change, compare, summary
from loadtest.bench.document import Document, DocumentError, document, read, write
from loadtest.bench.figures import FIGURES, Figure, Measured
from loadtest.bench.picture import draw
from loadtest.http_rate import bare_server
from loadtest.options import Options, add_options, count
from loadtest.scenarios import SCENARIOS, own_settings
from loadtest.schedule import ScheduleError
from loadtest.server import ServerError, serving
from loadtest.target import Place, TargetError

DEFAULT = Options(rate=100.0, seconds=4.0, warmup=0.5)
HOT_STREAMS = 512
"""Kept in memory by the server: more than any scenario needs at once, so few that cold streams are soon made."""
REFERENCE = Path("docs/benchmarks/bench.json")
FIXED = frozenset({"model"})
"""Options that are not asked for: the bare route takes one number a row, as the sinusoid does."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__, allow_abbrev=False)
    add = out.add_argument
    add("--turns", type=count(1, 101), default=5, help="of every scenario (default: %(default)d)")
    add("--scenario", action="append", choices=SCENARIOS, help="may be given several times (default: all)")
    add("--json", type=Path, default=Path("build/bench.json"), help="file for the report (default: %(default)s)")
    add("--plot", type=Path, default=Path("build/bench.png"), help="file for the picture (default: %(default)s)")
    add(
        "--against",
        type=Path,
        metavar="FILE",
        help=f"report to compare with (default: the last one in --json, or {REFERENCE})",
    )
    add("--strict", action="store_true", help="exit code 1 if a figure got worse beyond noise")
    add_options(out, DEFAULT, without=FIXED)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 where the servers could not be used, --against could not be read, or with --strict if a figure got worse;
        2 for wrong usage.
    """
    arguments = vars(parser().parse_args(argv))
    turns, names, strict = arguments.pop("turns"), arguments.pop("scenario") or SCENARIOS, arguments.pop("strict")
    out, plot, against = (arguments.pop(name) for name in ("json", "plot", "against"))
    options = Options(**arguments, model=DEFAULT.model)
    against = against or next((path for path in (out, REFERENCE) if path.exists()), None)
    try:
        before = None if against is None else read(against)
        measured = measure(options, turns, names)
    except (DocumentError, TargetError, ServerError, ScheduleError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    made = document(options, measured)
    changes = compare({} if before is None else before.figures, made.figures)
    print(*lines(measured, changes), *remarks(measured), *compared(made, before, changes, against), sep="\n")
    write(out, made, measured)
    plot.parent.mkdir(parents=True, exist_ok=True)
    draw(made.histograms, {} if before is None else before.histograms, plot)
    print(f"wrote {out} and {plot}")
    return code(changes, strict=strict)


def code(changes: Sequence[Change], *, strict: bool) -> int:
    """The exit code of a run that came to its end."""
    return int(strict and any(change.verdict == "worse" for change in changes))


def measure(options: Options, turns: int, names: Iterable[str]) -> dict[str, list[Measured]]:
    """Every scenario named as often as there are turns, in the order of ``SCENARIOS``."""
    found: dict[str, list[Measured]] = {name: [] for name in SCENARIOS if name in set(names)}
    for turn in range(1, turns + 1):
        with bare_server() as bare, serving((), own_settings(hot_streams=HOT_STREAMS)) as server:
            beside = Place(bare.url, bare.cpu_seconds, lasting=False)
            place = Place(server.url, server.cpu_seconds, lasting=False)
            for name, sofar in found.items():
                print(f"turn {turn} of {turns}: {name}", file=sys.stderr, flush=True)
                calibration = calibrate(beside, options)
                sofar.append(Measured(SCENARIOS[name](place, options), calibration))
    return found


def lines(measured: Mapping[str, Sequence[Measured]], changes: Sequence[Change]) -> list[str]:
    """The table: medians as measured, and in units of the bare route over the turns that count."""
    rows = ["| figure | measured | ÷ bare route | last | change | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    figures = {figure.key: figure for figure in FIGURES}
    return rows + [_line(figures[change.key], measured[figures[change.key].scenario], change) for change in changes]


def _line(figure: Figure, turns: Sequence[Measured], change: Change) -> str:
    absolute = statistics.median(figure.read(turn.report) for turn in turns)
    values = [figure.ratio(turn) for turn in turns if not turn.limited]
    spread = f" ({min(values):.3g} to {max(values):.3g})" if values else ""
    unit = f" {figure.unit}" if figure.unit else ""
    last, moved = ("-", "-") if math.isnan(change.p) else (f"{change.before:.3g}", f"{change.share:+.0%}")
    said = change.verdict if change.verdict in {"better", "worse"} else ""
    return f"| {change.key} | {absolute:,.3g}{unit} | {change.now:.3g}{spread} | {last} | {moved} | {said} |"


def remarks(measured: Mapping[str, Sequence[Measured]]) -> list[str]:
    """How often a scenario did not show the server alone, and in what words the first time."""
    found = []
    for name, turns in measured.items():
        said = [turn.report.limits for turn in turns if turn.report.limits]
        spoiled = sum(turn.limited for turn in turns)
        if spoiled:
            found.append(f"{name}: {spoiled} of {len(turns)} turns do not count, the generator was the limit in them")
        found += [f"{name}: {sentence}" for sentence in (said[0] if said else ())]
    return found


def compared(made: Document, before: Document | None, changes: Sequence[Change], against: Path | None) -> list[str]:
    """What moved, and what makes the comparison doubtful."""
    if before is None:
        return ["no earlier report: nothing to compare with"]
    other = [
        f"--{name} {before.options[name]} then" for name in made.options if before.options[name] != made.options[name]
    ]
    doubts = [f"measured with other options: {', '.join(other)}"] if other else []
    doubts += ["measured on another machine"] if before.machine != made.machine else []
    return [*(f"{against} was {doubt}" for doubt in doubts), f"against {against}: {summary(changes)}"]


if __name__ == "__main__":
    sys.exit(main())
