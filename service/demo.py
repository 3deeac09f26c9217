"""``make demo``: adaptation to drift, end to end, over HTTP.

Replays stations that the shipped model never saw into the server that ``make serve`` has started, or else into one of
its own on a free port, and prints what the streams scored beside the frozen start, online SGD from a random start and
the last value. Baselines run in this process on the same rows in the same batches.
"""

import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as Grid

from models import Evaluation, ModelsError, Scores, evaluate, read_bundle, summarise_streams
from service.commands.console import alarm_lines, err, following, number, out, progress_bar
from service.commands.data import table_for_model
from service.playback import PlaybackError, Played, describe_model, play

NAME = "beijing-pm25"
URL = "http://127.0.0.1:8000"
"""Where ``make serve`` answers."""
DATA = Path(__file__).parent.parent / "data" / "beijing_pm25_unseen.csv.gz"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
BATCH_ROWS = 3
"""The stations report every eight hours: a day's readings, predicted before any of their labels is known."""


def run(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rows of a batch; 3 are a station's day.")] = BATCH_ROWS,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Rows to replay.")] = DATA,
    model: Annotated[Path | None, typer.Option(metavar="FILE", help="Bundle (default: the shipped one).")] = None,
    url: Annotated[str, typer.Option(help="A server that is used if it answers and serves the shipped model.")] = URL,
) -> None:
    """Replay five stations that the model never saw into a server, and compare."""
    bundle = Path(str(files("models"))) / "shipped" / f"{NAME}.safetensors" if model is None else model
    try:
        spec = read_bundle(bundle)
        table = table_for_model(spec.spec, [data], None, None)
        out.print(
            f"{table.rows:,} rows of {len(table.stream_names)} stations that the model never saw, "
            f"in batches of {batch} rows, so that it takes no more than a minute or two (--batch 1 scores better)",
            soft_wrap=True,
        )
        running = model is None and serves(url)
        with nullcontext(url) if running else serving(bundle) as address, progress_bar() as bar:
            out.print(f"a server with the model {NAME} answers at {address}; watch it in a browser", soft_wrap=True)
            replayed = bar.add_task("replay over HTTP", total=table.rows)
            served = describe_model(address, NAME)
            # Streams of their own: those of a demo before have learned these rows already.
            prefix = f"demo-{secrets.token_hex(2)}-" if running else ""
            named = table._replace(stream_names=tuple(f"{prefix}{name}" for name in table.stream_names))
            played = play(
                address, served, named, batch=batch, progress=lambda rows: bar.update(replayed, completed=rows)
            )
        with progress_bar() as bar:
            follow = following(bar, table.rows)
            evaluation = evaluate(spec, table, batch=batch, compare=True, progress=follow)
    except (ModelsError, PlaybackError) as error:
        err.print(f"demo: {error}", soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    _report(played, evaluation, prefix)


def serves(url: str) -> bool:
    """Whether a server answers there that serves the shipped model to everybody."""
    try:
        describe_model(url, NAME)
    except PlaybackError:
        return False
    return True


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """A server process of its own on a free loopback port, with a temporary store; gives its URL.

    Raises:
        PlaybackError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="acclimate-demo-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--log-level", "warning"]
        command += ["--data-dir", f"{folder}/data", "--model", f"{NAME}={bundle}"]
        with log.open("wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)  # noqa: S603 - ours
        try:
            assert process.stdout is not None
            first = process.stdout.readline().split()
            if first[:2] != ["serving", "at"]:
                process.wait(STOP_SECONDS)
                raise PlaybackError(f"the server did not start: {log.read_text(errors='replace').strip()[-400:]}")
            yield first[2].rstrip(",")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _report(played: Played, evaluation: Evaluation, prefix: str) -> None:
    report = evaluation.report
    by_name = {run.name: run for run in evaluation.runs}
    frozen, adapted = played.stream_scores
    columns: list[tuple[str, Mapping[str, Scores]]] = [
        ("frozen start", _without(prefix, frozen)),
        ("last value", summarise_streams(by_name["last value"], report.table, report.scored)),
        ("online SGD", summarise_streams(by_name["online SGD"], report.table, report.scored)),
        ("adapted", _without(prefix, adapted)),
    ]
    grid = Grid(title="mean absolute error of PM2.5, µg/m³, test then train", title_justify="left")
    grid.add_column("station")
    grid.add_column("rows", justify="right")
    for name, _ in columns:
        grid.add_column(name, justify="right", style="bold" if name == "adapted" else None)
    grid.add_column("alarms", justify="right")
    own = _without(prefix, adapted)
    for station in report.table.stream_names:
        cells = [number(scores[station].score) for _, scores in columns]
        grid.add_row(station, f"{own[station].rows:,}", *cells, str(own[station].alarms), end_section=False)
    grid.add_section()
    overall_frozen, overall = played.scores
    offline = {scores.name: scores for scores in evaluation.scores}
    middle = [number(offline[name].score) for name in ("last value", "online SGD")]
    grid.add_row(
        "all", f"{overall.rows:,}", number(overall_frozen.score), *middle, number(overall.score), str(overall.alarms)
    )
    out.print(grid)
    for line in alarm_lines(played.runs[-1].alarms or ()):
        out.print(line)
    speed = report.table.rows / played.seconds
    out.print(
        f"over HTTP: {played.seconds:.0f} s, {speed:,.0f} rows/s, every batch committed to disk before its answer"
    )
    out.print(f"the same rows offline (acclimate evaluate): {number(offline['adapted'].score)}")
    out.print("frozen start: the meta-trained model, never adapted. online SGD: the same network from a random start.")


def _without(prefix: str, scores: Mapping[str, Scores]) -> dict[str, Scores]:
    return {name.removeprefix(prefix): score for name, score in scores.items()}


if __name__ == "__main__":
    typer.run(run)
