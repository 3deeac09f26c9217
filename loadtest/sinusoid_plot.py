"""The picture of the sinusoid benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

_BEFORE, _AFTER = "#8a8f98", ("#e08a2e", "#1f6fb4")


class Panel(NamedTuple):
    """One method on one task.

    Attributes:
        title: The method.
        x: (N,) where curves are drawn.
        truth: (N,) the task.
        support_x: (K,) labelled points.
        support_y: (K,) their labels.
        curves: Mean and standard deviation (N,) by what they come after; the first is before adaptation.
    """

    title: str
    x: Tensor
    truth: Tensor
    support_x: Tensor
    support_y: Tensor
    curves: Mapping[str, tuple[Tensor, Tensor]]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels side by side into a PNG file; the band is ± 2 standard deviations after the last adaptation."""
    figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        axes.plot(panel.x, panel.truth, color="black", linewidth=1.2, label="truth")
        for index, (label, (mean, std)) in enumerate(panel.curves.items()):
            color, style = (_BEFORE, "--") if index == 0 else (_AFTER[(index - 1) % len(_AFTER)], "-")
            name = "before adaptation" if index == 0 else f"after {label}"
            axes.plot(panel.x, mean, color=color, linestyle=style, linewidth=1.8, label=name)
            if index == len(panel.curves) - 1:
                axes.fill_between(panel.x, mean - 2 * std, mean + 2 * std, color=color, alpha=0.15, linewidth=0)
        axes.plot(panel.support_x, panel.support_y, "o", color="black", markersize=5, label="labelled points")
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("x")
        axes.set_ylim(-7.5, 7.5)
        axes.legend(fontsize=7.5, loc="upper left", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)
