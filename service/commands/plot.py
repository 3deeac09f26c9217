"""The picture of an evaluation: rolling scores over time, and where drift was found."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from models import Evaluation, default_window, rolling_score
from service.commands.console import CommandError

mpl.use("Agg")
COLOURS = {"frozen start": "#8c8c8c", "last value": "#c9a227", "online SGD": "#7b6ca8", "adapted": "#1668b3"}
DRIFT_COLOUR = "#c8442b"
MARKS_MAX = 60
"""With more alarms than this their lines would hide the curves; short ticks stay."""


def plot(evaluation: Evaluation, file: Path, title: str) -> None:
    """Write a PNG (or what the file's ending says).

    Raises:
        CommandError: The file cannot be written.
    """
    table, scored = evaluation.report.table, evaluation.report.scored
    figure = Figure(figsize=(11, 5), dpi=140, layout="constrained")
    axes = figure.subplots()
    for run in evaluation.runs:
        rows, values = rolling_score(run, scored)
        main = run.name == "adapted"
        mean = run.score[scored].mean()
        axes.plot(
            rows,
            values,
            color=COLOURS.get(run.name),
            linewidth=2.0 if main else 1.2,
            alpha=1.0 if main else 0.85,
            zorder=3 if main else 2,
            label=f"{run.name} ({mean:.3f})" if mean < 100 else f"{run.name} ({mean:.1f})",  # noqa: PLR2004
        )
    alarms = [alarm.file_row for alarm in evaluation.report.adapted.alarms or () if scored[alarm.file_row]]
    height = 1.0 if len(alarms) <= MARKS_MAX else 0.04
    for position, row in enumerate(alarms):
        label = f"drift alarm ({len(alarms)})" if position == 0 else None
        axes.axvline(row, ymax=height, color=DRIFT_COLOUR, linewidth=0.9, alpha=0.55, zorder=1, label=label)
    regression = table.task == "regression"
    window = default_window(scored)
    axes.set_ylabel(f"{'mean absolute error' if regression else 'accuracy'}, last {window} rows")
    axes.set_xlabel("row of the data in time order")
    if regression:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    figure.legend(loc="outside lower left", frameon=False, ncols=5)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: the plot cannot be written ({error}); give a path that ends in .png") from None
