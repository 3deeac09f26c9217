"""The terminal: results go to stdout, progress and errors to stderr."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as Grid

from models import Alarm, EvaluationProgress, Scores

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
ALARMS_SHOWN = 10
NARROW: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1), "pad_edge": False, "collapse_padding": True}
"""A table whose columns stand close enough for 80 characters."""


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


def following(bar: Progress, rows: int) -> EvaluationProgress:
    """What shows each contender of an evaluation on a line of its own, from when it begins."""
    tasks: dict[str, TaskID] = {}

    def follow(name: str, done: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=rows)
        bar.update(tasks[name], completed=done)

    return follow


def in_a_folder(file: Path | None) -> None:
    """Before the work: that a file which is written after it has a folder. Raises CommandError."""
    if file is not None and not file.resolve().parent.is_dir():
        raise CommandError(f"{file}: there is no such folder; make it first")


def write_json(file: Path | None, body: Any) -> None:
    """Write figures where ``--json`` asks for them; None writes nothing.

    Raises:
        CommandError: The file cannot be written.
    """
    if file is None:
        return
    try:
        file.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    except OSError as error:
        raise CommandError(f"{file}: cannot be written ({error.strerror}); choose another --json") from None
    out.print(f"wrote {file}", soft_wrap=True)


def score_grid(task: str, scores: Sequence[Scores], title: str, caption: str, *, best_first: bool = False) -> Grid:
    """The table of contenders: the last one, the adapted streams, stands out.

    Args:
        task: ``regression`` or ``classification``.
        scores: One entry a contender, over the same rows.
        title: Above the table.
        caption: Below it.
        best_first: Sort by score; otherwise as given.
    """
    regression = task == "regression"
    main = scores[-1]
    columns: list[tuple[str, Callable[[Scores], str]]] = [
        ("", lambda each: each.name),
        ("MAE" if regression else "accuracy", lambda each: number(each.score)),
    ]
    if regression:
        columns.append(("RMSE", lambda each: number(each.rmse)))
    columns.append(("loss", lambda each: number(each.loss)))
    if regression:
        columns.append(("in 90%", lambda each: "–" if each.coverage is None else f"{each.coverage:.1%}"))
        columns.append(("width", lambda each: number(each.width)))
    else:
        columns.append(("cal. err.", lambda each: "–" if each.ece is None else f"{each.ece:.4f}"))
    if any(each.first20 is not None for each in scores):
        columns.append(("first20", lambda each: number(each.first20)))
    columns.append(("alarms", lambda each: "–" if each.alarms is None else str(each.alarms)))
    columns.append(("µs/row", lambda each: "–" if each.cpu_us_per_row is None else f"{each.cpu_us_per_row:,.0f}"))
    caption = f"{main.rows:,} rows scored; {caption}"
    grid = Grid(title=title, title_justify="left", caption=caption, caption_justify="left", **NARROW)
    for position, (name, _) in enumerate(columns):
        # Where room is short names are wrapped, never figures.
        grid.add_column(name, justify="right" if position else "left", no_wrap=position > 0)
    order = sorted(scores, key=lambda each: each.score if regression else -each.score) if best_first else scores
    for each in order:
        grid.add_row(*(cell(each) for _, cell in columns), style="bold green" if each is main else None)
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
