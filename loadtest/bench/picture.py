"""The picture of a run: latency by percentile, a panel a scenario."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from loadtest.histogram import Histogram

BARE = "bare"
COLUMNS = 4
_NOW, _BEFORE, _BARE = "#1f6fb4", "#e08a2e", "#8a8f98"
_TICKS = {0.0: "0", 0.5: "50", 0.9: "90", 0.99: "99", 0.999: "99.9", 0.9999: "99.99"}
"""Percentiles that the axis names: it is even in the number of nines."""


def draw(now: Mapping[str, Histogram], before: Mapping[str, Histogram], path: Path) -> None:
    """Draw a PNG file.

    Args:
        now: Latencies by scenario, and of the bare route by ``BARE``.
        before: Those of the last run, as far as there was one.
        path: Where to.
    """
    names = [name for name in now if name != BARE]
    rows = -(-(len(names) + 1) // COLUMNS)  # one more for the legend
    figure = Figure(figsize=(3.4 * COLUMNS, 2.9 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        _curve(axes, now.get(BARE), _BARE, "-", 1.2)
        _curve(axes, before.get(name), _BEFORE, "--", 1.4)
        _curve(axes, now[name], _NOW, "-", 1.8)
        _dress(axes, name)
    legend, *others = list(figure.axes)[len(names) :]
    for axes in (legend, *others):
        axes.set_axis_off()
    for color, style, label in (
        (_NOW, "-", "this run"),
        *([(_BEFORE, "--", "last run")] if before else []),
        (_BARE, "-", "bare route, predictions"),
    ):
        legend.plot([], [], color=color, linestyle=style, label=label)
    legend.legend(loc="center", frameon=False, fontsize=10, title="latency from the due time,\nall turns that count")
    figure.savefig(path, dpi=110)


def _curve(axes: Axes, histogram: Histogram | None, color: str, style: str, width: float) -> None:
    """A histogram's quantiles, up to the last but one value: beyond it there is nothing to go by."""
    if histogram is None or len(histogram) < 2:
        return
    nines = np.linspace(0.0, np.log10(len(histogram)), 200)
    milliseconds = [max(histogram.at(1 - 10.0**-each), 1e-3) for each in nines]
    axes.plot(nines, milliseconds, color=color, linestyle=style, linewidth=width)


def _dress(axes: Axes, name: str) -> None:
    axes.set_title(name, fontsize=10)
    axes.set_yscale("log")
    axes.set_xlabel("percentile", fontsize=8.5)
    axes.set_ylabel("ms", fontsize=8.5)
    most = axes.get_xlim()[1]
    ticks = {nines: text for share, text in _TICKS.items() if (nines := -np.log10(1 - share)) <= most}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
