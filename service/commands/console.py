"""The terminal: results go to stdout, progress and errors to stderr."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Grid

from models import Alarm, Scores

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
ALARMS_SHOWN = 10


class CommandError(Exception):
    """A command cannot do what was asked: one line, what is wrong and what to do."""


@contextmanager
def progress_bar(unit: str = "rows") -> Iterator[Progress]:
    """A progress bar on stderr that disappears when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        yield bar


def score_grid(task: str, scores: Sequence[Scores], title: str, caption: str) -> Grid:
    """The table of contenders: the last one, the adapted streams, stands out."""
    regression = task == "regression"
    grid = Grid(title=title, title_justify="left", caption=caption, caption_justify="left")
    grid.add_column("", no_wrap=True)
    grid.add_column("rows", justify="right")
    grid.add_column("MAE" if regression else "accuracy", justify="right")
    if regression:
        grid.add_column("RMSE", justify="right")
    for name in ("loss", "first20", "alarms", "µs/row"):
        grid.add_column(name, justify="right")
    for position, each in enumerate(scores):
        cells = [each.name, f"{each.rows:,}", number(each.score)]
        if regression:
            cells.append(number(each.rmse))
        cells += [number(each.loss), number(each.first20), "–" if each.alarms is None else str(each.alarms)]
        cells.append("–" if each.cpu_us_per_row is None else f"{each.cpu_us_per_row:,.0f}")
        grid.add_row(*cells, style="bold" if position == len(scores) - 1 else None)
    return grid


def alarm_lines(alarms: Sequence[Alarm]) -> list[str]:
    """The first alarms, one line each."""
    lines = [
        f"drift: stream {alarm.stream}, row {alarm.row}, {alarm.detector} {alarm.statistic:.1f}"
        + (f", change estimated at row {alarm.change_row}" if alarm.change_row >= 0 else "")
        for alarm in alarms[:ALARMS_SHOWN]
    ]
    if len(alarms) > ALARMS_SHOWN:
        lines.append(f"and {len(alarms) - ALARMS_SHOWN} more alarms")
    return lines


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "–" if value is None else f"{value:#.4g}".rstrip(".")
