"""``acclimate evaluate``: test then train, offline, through the engine that the server uses."""

from pathlib import Path

from models import AFTER_ALARM_ROWS, Evaluation, Model, Table, evaluate, river_installed
from service.commands.console import (
    alarm_lines,
    following,
    in_a_folder,
    number,
    out,
    progress_bar,
    score_grid,
    write_json,
)
from service.commands.data import select
from service.commands.plot import plot


def run(
    model: Model,
    table: Table,
    *,
    batch: int,
    delay: int,
    rows: str | None,
    streams: Path | None,
    compare: bool,
    seed: int,
    device: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Run, print, and write what was asked for.

    ``compare`` runs the baselines, and River's models where River is installed.

    Raises:
        CommandError: A file cannot be written.
    """
    for file in (json_file, plot_file):
        in_a_folder(file)
    scored, part = select(table, rows, streams)
    with progress_bar() as bar:
        evaluation = evaluate(
            model,
            table,
            batch=batch,
            delay=delay,
            scored=scored,
            compare=compare,
            river=compare and river_installed(),
            seed=seed,
            device=device,
            progress=following(bar, table.rows),
        )
    title = f"{model.spec.name} on {table.name}" + (f" ({part})" if part else "")
    detail = f"batch {batch}, label delay {delay} rows, {len(table.stream_names)} streams"
    out.print(score_grid(table.task, evaluation.scores, title, detail, best_first=compare))
    if compare:
        out.print(_terms(evaluation), soft_wrap=True)
    for line in alarm_lines(evaluation.report.adapted.alarms or ()):
        out.print(line)
    for line in _after_alarms(evaluation):
        out.print(line)
    frozen, adapted = evaluation.scores[0], evaluation.scores[-1]
    out.print(f"frozen start {number(frozen.score)} → adapted {number(adapted.score)}")
    write_json(json_file, {"model": model.spec.name, "part": part, **evaluation.as_dict()})
    if plot_file is not None:
        plot(evaluation, plot_file, title, detail)
        out.print(f"wrote {plot_file}", soft_wrap=True)


def _terms(evaluation: Evaluation) -> str:
    """On which terms the contenders ran: one line for the table."""
    spoken = "all rivals get the model's inputs and lagged targets, row by row as it does"
    if not river_installed():
        return spoken + '; River\'s models are left out: pip install "acclimate[compare]" adds them'
    several = len(evaluation.report.table.stream_names) > 1
    return spoken + ("; shared: one model learns all streams, the others keep one a stream" if several else "")


def _after_alarms(evaluation: Evaluation) -> list[str]:
    """How certain the adapted streams are after alarms, where there are such rows."""
    if not evaluation.after_alarms:
        return []
    adapted = evaluation.after_alarms[-1]
    if adapted.coverage is not None:
        held = f"{adapted.coverage:.1%} of the labels lie in their 90% intervals, mean width {number(adapted.width)}"
    else:
        held = f"calibration error {adapted.ece or 0:.4f}"
    return [
        f"in the {AFTER_ALARM_ROWS} rows after alarms ({adapted.rows:,} rows): score {number(adapted.score)}, {held}"
    ]
