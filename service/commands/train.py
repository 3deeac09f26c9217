"""``acclimate train``: meta-train, print held-out scores, write one bundle; and go on after an interruption."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from models import (
    Journal,
    Model,
    Table,
    TrainingReport,
    TrainProgress,
    TrainSettings,
    fingerprint,
    read_table,
    train_table,
    train_tasks,
    write_bundle,
)
from service.commands.console import CommandError, in_a_folder, number, out, progress_bar, write_json
from service.commands.data import select

Follow = Callable[[TrainProgress], None]
STATED = ("task", "lag_target", "delay", "algorithm", "seed", "search", "classes", "ways", "archive_segments", "start")
"""Settings that a resumed training must have in common with the interrupted one; the budget may change."""


def settings(**given: Any) -> TrainSettings:
    """Training settings as the command line states them."""
    return TrainSettings(**given)


def run_tasks(family: str, settings: TrainSettings, file: Path, *, resume: bool, json_file: Path | None = None) -> None:
    """Meta-train on a built-in task family."""
    stated = {"family": family, **_stated(settings)}
    key = fingerprint(stated)
    _run(
        lambda made, follow: train_tasks(family, made, follow), settings, file, key, resume=resume, json_file=json_file
    )


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
    resume: bool,
    json_file: Path | None = None,
) -> None:
    """Meta-train on the selected part of data files."""
    table = read_table(
        files,
        target=target,
        stream_column=stream_column,
        time_column=time_column,
        features=features,
        task=settings.task or ("classification" if settings.classes == "open" else None),
    )
    table = selected(table, rows, streams)
    key = fingerprint(_stated(settings), table)
    _run(lambda made, follow: train_table(table, made, follow), settings, file, key, resume=resume, json_file=json_file)


def selected(table: Table, rows: str | None, streams: Path | None) -> Table:
    """The part that is trained on, which is told."""
    mask, part = select(table, rows, streams)
    table = table if mask is None else table.take(mask, part)
    out.print(
        f"{table.name}: {table.rows:,} rows{f' ({part})' if part else ''} of {len(table.stream_names)} streams, "
        f"{len(table.features)} features; {table.task} ({table.task_reason})",
        soft_wrap=True,
    )
    return table


def open_journal(file: Path, key: str, *, resume: bool) -> tuple[Journal, Path]:
    """The checkpoint beside the bundle, which is read with ``resume``.

    Raises:
        CommandError: No folder for the bundle, or no checkpoint to resume.
        TrainingError: The checkpoint is damaged or belongs to another training.
    """
    if not file.resolve().parent.is_dir():
        raise CommandError(f"{file}: there is no such folder; make it first, or choose another --out")
    checkpoint = file.with_name(f"{file.name}.checkpoint")
    content = None
    if resume:
        try:
            content = checkpoint.read_bytes()
        except OSError as error:
            raise CommandError(f"{checkpoint}: cannot be read ({error.strerror}); train without --resume") from None
    elif checkpoint.exists():
        out.print(f"{checkpoint} of an earlier run is not used and will be overwritten", soft_wrap=True)
    journal = Journal(key, lambda data: write_file(checkpoint, data), content)
    if resume:
        done = f"{journal.stages} finished stages, {journal.iterations:,} meta-iterations"
        out.print(f"going on from {checkpoint}: {done}", soft_wrap=True)
    return journal, checkpoint


def _run(
    train: Callable[[TrainSettings, Follow], tuple[Model, TrainingReport]],
    settings: TrainSettings,
    file: Path,
    key: str,
    *,
    resume: bool,
    json_file: Path | None,
) -> None:
    in_a_folder(json_file)
    journal, checkpoint = open_journal(file, key, resume=resume)
    with following_bar() as follow:
        try:
            model, report = train(replace(settings, journal=journal), follow)
        except KeyboardInterrupt:  # between two stages, where nothing catches it
            model, report = _latest(journal)
    write_file(file, write_bundle(model))
    for choice in report.choices:
        out.print(choice, soft_wrap=True)
    if report.scores:
        out.print(score_table(report.metric, report.scores))
    figures = {"model": str(file), "metric": report.metric, "scores": report.scores, "choices": report.choices}
    write_json(json_file, figures | {"interrupted": report.interrupted})
    if report.interrupted:
        out.print(
            f"stopped early, the best so far: wrote {file}; the same command with --resume goes on", soft_wrap=True
        )
        return
    checkpoint.unlink(missing_ok=True)
    out.print(f"wrote {file}; next: acclimate evaluate {file} --data FILE", soft_wrap=True)


def _latest(journal: Journal) -> tuple[Model, TrainingReport]:
    if journal.latest is None:
        raise CommandError("stopped before there was a model to keep; nothing was written") from None
    spec = journal.latest.spec
    provenance = {**spec.provenance, "interrupted": "before it was scored"}
    return Model(replace(spec, provenance=provenance), journal.latest.meta), TrainingReport(
        "", {}, (), interrupted=True
    )


@contextmanager
def following_bar() -> Iterator[Follow]:
    """A progress bar in percent, and what tells it how far training is."""
    with progress_bar("%") as bar:
        task = bar.add_task("meta-training", total=100)
        yield lambda step: bar.update(task, completed=int(100 * step.fraction), description=step.description)


def write_file(file: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        CommandError: It cannot be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written ({error.strerror}); choose another --out") from None


def score_table(metric: str, scores: Mapping[str, float]) -> Grid:
    """Held-out scores, one a line."""
    grid = Grid(title=f"held out: {metric}", title_justify="left")
    grid.add_column("")
    grid.add_column("score", justify="right")
    for name, score in scores.items():
        grid.add_row(name, number(score))
    return grid


def _stated(settings: TrainSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in STATED}
