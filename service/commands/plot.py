"""The picture of an evaluation: rolling scores over time, what was found to drift, and whether certainty held."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models import LEVEL, Alarm, Evaluation, FloatArray, Mask, Run, Scores, default_window, rolling_score
from service.commands.console import CommandError

mpl.use("Agg")
OURS, FROZEN = "#0b62a4", "#7a7a7a"
RIVALS = ("#c77d00", "#7b519d")
"""The best rivals, best first."""
DRIFT = "#c0311a"
INK, GRID = "#222222", "#e4e4e4"
STREAMS_MAX = 24
"""With more streams than this, alarms are drawn on one line instead of one line a stream."""
MARKS_MAX = 40
"""With more alarms than this, lines through the curves would hide them; the marks below stay."""


def plot(evaluation: Evaluation, file: Path, title: str, detail: str) -> None:
    """Write a PNG (or what the file's ending says): score, alarms and calibration over time, one above the other.

    Args:
        evaluation: What ran.
        file: Where to.
        title: What ran over what.
        detail: Batches, delay and streams, below the title.

    Raises:
        CommandError: The file cannot be written.
    """
    report = evaluation.report
    alarms = [alarm for alarm in report.adapted.alarms or () if report.scored[alarm.file_row]]
    streams = sorted({alarm.stream for alarm in alarms}, key=report.table.stream_names.index)
    lines = len(streams) if len(streams) <= STREAMS_MAX else 1
    heights = [3.6, 1.5, *([0.3 + 0.19 * lines] if alarms else [])]
    detail += "" if alarms else ", no drift alarms"
    with mpl.rc_context({"font.size": 11, "axes.edgecolor": "#9a9a9a", "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(11, 1.9 + sum(heights)), dpi=120, layout="constrained", facecolor="white")
        score, certainty, *rest = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _draw_scores(score, evaluation)
        _draw_certainty(certainty, evaluation)
        if alarms:
            _draw_alarms(rest[0], alarms, streams, several=len(report.table.stream_names) > 1)
        for axes in (score, certainty):
            for alarm in alarms if len(alarms) <= MARKS_MAX else ():
                axes.axvline(alarm.file_row, color=DRIFT, linewidth=0.9, alpha=0.35, zorder=1)
        window = default_window(report.scored)
        last = rest[0] if alarms else certainty
        last.set_xlabel(f"row of the data, in time order; curves: means of the last {window:,} scored rows")
        last.xaxis.set_major_formatter("{x:,.0f}")
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
        score.set_title(detail, loc="left", fontsize=11, color="#555555", pad=12)
        handles, labels = score.get_legend_handles_labels()
        if alarms:
            handles.append(
                Line2D([], [], color=DRIFT, linestyle="none", marker="|", markersize=11, markeredgewidth=1.8)
            )
            labels.append(f"drift alarms: {len(alarms)}")
        figure.legend(handles, labels, loc="outside lower left", frameon=False, ncols=5, columnspacing=1.4)
        try:
            figure.savefig(file)
        except (OSError, ValueError) as error:
            raise CommandError(f"{file}: the plot cannot be written ({error}); give a path that ends in .png") from None


def shown_runs(evaluation: Evaluation) -> list[tuple[Run, Scores]]:
    """The runs that are drawn: the frozen start, the best rivals in order, and last, on top, the adapted streams."""
    frozen, *rivals, adapted = zip(evaluation.runs, evaluation.scores, strict=True)
    sign = 1 if evaluation.report.table.task == "regression" else -1
    return [frozen, *sorted(rivals, key=lambda pair: sign * pair[1].score)[: len(RIVALS)], adapted]


def _draw_scores(axes: Axes, evaluation: Evaluation) -> None:
    shown = shown_runs(evaluation)
    regression = evaluation.report.table.task == "regression"
    top = 0.0
    for position, (run, figures) in enumerate(shown):
        main, still = position == len(shown) - 1, position == 0
        colour = OURS if main else FROZEN if still else RIVALS[position - 1]
        rows, values = rolling_score(run, evaluation.report.scored)
        text = f"{figures.score:.1%}" if not regression else f"{figures.score:#.3g}".rstrip(".")
        axes.plot(
            rows,
            values,
            color=colour,
            linewidth=2.4 if main else 1.5,
            linestyle="--" if still else "-",
            zorder=4 if main else 3 - 0.1 * position,
            label=f"{run.name}: {text}",
        )
        top = max(top, float(np.quantile(values, 1.0 if main or still else 0.95)))
    if regression:
        axes.set_ylim(0, 1.08 * top)
        axes.set_ylabel(f"mean absolute error,\nunits of {evaluation.report.table.target_name!r}")
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_ylabel("accuracy")
    _plain(axes)


def _draw_alarms(axes: Axes, alarms: Sequence[Alarm], streams: Sequence[str], *, several: bool) -> None:
    """A mark at each alarm, on its stream's own line where there is room."""
    apart = several and len(streams) <= STREAMS_MAX
    places = [streams.index(alarm.stream) if apart else 0 for alarm in alarms]
    axes.plot(
        [alarm.file_row for alarm in alarms],
        places,
        linestyle="none",
        marker="|",
        markersize=9,
        markeredgewidth=1.6,
        color=DRIFT,
    )
    axes.set_ylim(max(len(streams) - 0.4 if apart else 0.6, 0.6), -0.6)
    axes.set_yticks(range(len(streams)) if apart else [], labels=streams if apart else [], fontsize=9)
    axes.set_title("drift alarms" + (", by stream" if apart else ""), loc="left", fontsize=11, color="#555555")
    axes.tick_params(length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_certainty(axes: Axes, evaluation: Evaluation) -> None:
    """Coverage of the 90% intervals, or accuracy less stated confidence: the frozen start, the adapted streams."""
    report = evaluation.report
    wanted = 0.0
    for run, colour, line, width in ((report.frozen, FROZEN, "--", 1.5), (report.adapted, OURS, "-", 2.2)):
        held = run.inside
        if held is None:
            held = run.score - (run.confidence if run.confidence is not None else 0.0)
        else:
            wanted = LEVEL
        rows, values = _rolling(run, held, report.scored)
        axes.plot(rows, values, color=colour, linestyle=line, linewidth=width)
    axes.axhline(wanted, color=INK, linewidth=1.0, linestyle=":")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if wanted else f"{100 * value:+.0f}")
    axes.set_title(
        "labels inside their 90% interval" if wanted else "accuracy less stated confidence, points (below 0: too sure)",
        loc="left",
        fontsize=11,
        color="#555555",
    )
    _plain(axes)


def _rolling(run: Run, values: FloatArray, scored: Mask) -> tuple[FloatArray, FloatArray]:
    return rolling_score(run._replace(score=values), scored)


def _plain(axes: Axes) -> None:
    axes.margins(x=0.01)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
