"""``python -m loadtest``: open-loop load on a server, its latency percentiles and the rate it achieved."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
from rich.console import Console

from loadtest import target
from loadtest.machine import machine
from loadtest.options import Options, add_options
from loadtest.report import Report, table
from loadtest.scenarios import SCENARIOS, own_settings
from loadtest.schedule import ScheduleError
from loadtest.server import ServerError, serving


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__, allow_abbrev=False)
    add = out.add_argument
    add("--url", help="server under load (default: one of its own, on a free loopback port)")
    add("--allow-remote", action="store_true", help="allow a --url that is not this machine")
    add(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        help="may be given several times (default: predict, then feedback)",
    )
    add_options(out, Options())
    add("--json", type=Path, metavar="OUT", help="write the report here as well")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when every scenario got answers 2xx, 1 when one got none or the server could not be used, 2 for wrong usage.
    """
    command_line = parser()
    arguments = vars(command_line.parse_args(argv))
    url, json_path = arguments.pop("url"), arguments.pop("json")
    names = arguments.pop("scenario") or ["predict", "feedback"]
    if not arguments.pop("allow_remote") and url is not None and not target.is_loopback(url):
        command_line.error(f"{url} is not this machine: add --allow-remote if its owner wants this load")
    options = Options(**arguments)
    try:
        with _place(url) as place:
            reports = [SCENARIOS[name](place, options) for name in names]
    except (target.TargetError, ServerError, ScheduleError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    console = Console()
    console.print(table(reports))
    for report in reports:
        for line in remarks(report):
            console.print(f"{report.scenario}: {line}", highlight=False, soft_wrap=True)
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(_document(url, options, reports), option=orjson.OPT_INDENT_2))
    return 0 if all(report.ok for report in reports) else 1


def remarks(report: Report) -> list[str]:
    """What the table has no column for: a scenario's own figures, and what limited it."""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in report.figures.items())
    return [*([figures] if figures else []), *report.limits]


@contextmanager
def _place(url: str | None) -> Iterator[target.Place]:
    """The server that was named, or one of its own."""
    if url is not None:
        yield target.Place(url)
        return
    with serving((), own_settings()) as server:
        yield target.Place(server.url, server.cpu_seconds, lasting=False)


def _document(url: str | None, options: Options, reports: Sequence[Report]) -> dict[str, object]:
    """The report as JSON: what was asked, where, and what came out."""
    return {
        "url": url or "own server",
        "options": vars(options),
        "machine": machine(),
        "reports": [report.as_json() for report in reports],
    }


if __name__ == "__main__":
    sys.exit(main())
