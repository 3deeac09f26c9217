"""The picture of the Omniglot benchmark: what a task is, and how many answers were right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtest.omniglot_data import SIDE
from models import Batch, Episode

_COLORS = {"1": "#e08a2e", "5": "#1f6fb4"}


def draw(task: Episode, entries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw one task of one shot beside the accuracies, into a PNG file.

    Args:
        task: The first of its tasks is shown: the labelled drawing of each class, and below it those asked about.
        entries: Figures by method, as in the JSON file.
        path: Where to.
    """
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.0, 1.5))[0]
    _task(left, task)
    _bars(right.subplots(), entries)
    figure.savefig(path, dpi=110)


def _task(figure: Any, task: Episode) -> None:
    support, query = (Batch(*(tensor[0] for tensor in part)) for part in task)
    ways = int(support.y.max()) + 1
    asked = [query.x[query.y == label] for label in range(ways)]
    for row, line in enumerate(figure.subplots(min(len(rows) for rows in asked) + 1, ways)):
        for label, axes in enumerate(line):
            image = support.x[support.y == label][0] if row == 0 else asked[label][row - 1]
            axes.imshow(image.view(SIDE, SIDE).numpy(), cmap="gray_r" if row == 0 else "Blues", vmin=0.0, vmax=1.0)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.suptitle("one task: a labelled drawing of each (black), those asked about", fontsize=9)


def _bars(axes: Axes, entries: Mapping[str, Mapping[str, Any]]) -> None:
    names = list(entries)[::-1]
    for offset, (shots, color) in enumerate(_COLORS.items()):
        found = [entries[name]["accuracy"][shots] for name in names]
        places = [place + 0.2 - 0.4 * offset for place in range(len(names))]
        means = [one["mean"] for one in found]
        label = f"{shots} shot{'s' if shots != '1' else ''}"
        axes.barh(places, means, 0.38, xerr=[one["interval_95"] for one in found], color=color, label=label)
        for place, mean in zip(places, means, strict=True):
            axes.text(21.0, place, f"{mean:.1f}", va="center", fontsize=8, color="white")
    axes.set_yticks(range(len(names)), [entries[name]["title"] for name in names])
    axes.set_xlim(20.0, 100.0)
    axes.axvline(20.0, color="black", linewidth=0.8)
    axes.set_xlabel("% right of 5 characters that training has not seen (a guess: 20)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
