"""``acclimate train``: meta-train, print held-out scores, write one bundle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from models import (
    Model,
    TrainingReport,
    TrainProgress,
    TrainSettings,
    read_table,
    train_table,
    train_tasks,
    write_bundle,
)
from service.commands.console import CommandError, number, out, progress_bar
from service.commands.data import select

Training = Callable[[Callable[[TrainProgress], None]], tuple[Model, TrainingReport]]


def settings(**given: Any) -> TrainSettings:
    """Training settings as the command line states them."""
    return TrainSettings(**given)


def run_tasks(family: str, settings: TrainSettings, file: Path) -> None:
    """Meta-train on a built-in task family."""
    _run(lambda progress: train_tasks(family, settings, progress), file)


def run_table(
    files: Sequence[Path],
    settings: TrainSettings,
    file: Path,
    *,
    target: str,
    stream_column: str | None,
    time_column: str | None,
    features: list[str] | None,
    rows: str | None,
    streams: Path | None,
) -> None:
    """Meta-train on the selected part of data files."""
    table = read_table(
        files,
        target=target,
        stream_column=stream_column,
        time_column=time_column,
        features=features,
        task=settings.task,
    )
    mask, part = select(table, rows, streams)
    table = table if mask is None else table.take(mask, part)
    out.print(
        f"{table.name}: {table.rows:,} rows{f' ({part})' if part else ''} of {len(table.stream_names)} streams, "
        f"{len(table.features)} features; {table.task} ({table.task_reason})",
        soft_wrap=True,
    )
    _run(lambda progress: train_table(table, settings, progress), file)


def _run(training: Training, file: Path) -> None:
    if not file.resolve().parent.is_dir():
        raise CommandError(f"{file}: there is no such folder; make it first, or choose another --out")
    with progress_bar("%") as bar:
        task = bar.add_task("meta-training", total=100)

        def follow(progress: TrainProgress) -> None:
            bar.update(task, completed=int(100 * progress.fraction), description=progress.description)

        try:
            model, report = training(follow)
        except KeyboardInterrupt:
            raise CommandError("stopped before there was a model to keep; nothing was written") from None
    _write(model, file)
    for choice in report.choices:
        out.print(choice, soft_wrap=True)
    out.print(_grid(report))
    stopped = "stopped early, the best so far: " if report.interrupted else ""
    out.print(f"{stopped}wrote {file}; next: acclimate evaluate {file} --data FILE", soft_wrap=True)


def _write(model: Model, file: Path) -> None:
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(write_bundle(model))
        partial.replace(file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written ({error.strerror}); choose another --out") from None


def _grid(report: TrainingReport) -> Grid:
    grid = Grid(title=f"held out: {report.metric}", title_justify="left")
    grid.add_column("")
    grid.add_column("score", justify="right")
    for name, score in report.scores.items():
        grid.add_row(name, number(score))
    return grid
