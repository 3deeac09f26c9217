"""The picture of a run: what the server held, over time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtest.soak.watch import Sample, Slope, after_warm_up

_LINE, _FIT, _WARM = "#1f6fb4", "#e08a2e", "#eef0f3"


def draw(samples: Sequence[Sample], found: Sequence[Slope], path: Path) -> None:
    """Draw a PNG file: a panel a figure, the warm-up shaded, the slope drawn over what counts."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    minutes = [sample.seconds / 60 for sample in samples]
    start = after_warm_up(samples)[0].seconds / 60
    for axes, slope in zip(figure.subplots(1, len(found)), found, strict=True):
        axes.axvspan(0, start, color=_WARM, linewidth=0)
        axes.plot(minutes, [getattr(sample, slope.name) for sample in samples], color=_LINE, linewidth=1.1)
        middle, half = (slope.first + slope.last) / 2, slope.per_minute * (minutes[-1] - start) / 2
        axes.plot([start, minutes[-1]], [middle - half, middle + half], color=_FIT, linewidth=1.6)
        axes.set_title(f"{slope.name.replace('_', ' ')}: {slope.per_minute:+.3f} a minute", fontsize=10)
        axes.set_xlabel("minutes (shaded: warm-up)", fontsize=8.5)
        axes.set_xlim(0, minutes[-1])
        axes.set_ylim(0, 1.15 * max(getattr(sample, slope.name) for sample in samples))
        axes.tick_params(labelsize=8)
        axes.grid(visible=True, color="#e4e6ea", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)
