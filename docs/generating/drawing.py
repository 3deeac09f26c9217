"""What the pictures share: colours, a figure, boxes and arrows, and files that come out the same every time."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from models import use_threads

IMAGES = Path(__file__).parents[1] / "images"
SHIPPED = Path(__file__).parents[2] / "models/shipped"
DATA = Path(__file__).parents[2] / "data"
OURS, FROZEN, OTHER, DRIFT = "#0b62a4", "#7a7a7a", "#c77d00", "#c0311a"
INK, GRID, PALE = "#222222", "#e4e4e4", "#e9f1f8"


def styled(draw: Callable[[Path], Path]) -> Callable[..., Path]:
    """A picture's function in this style, and for this page's images where no folder is named."""

    @wraps(draw)
    def drawn(folder: Path = IMAGES) -> Path:
        use_threads(1)
        with mpl.rc_context({"font.size": 10, "axes.labelcolor": INK, "text.color": INK, "svg.hashsalt": "docs"}):
            return draw(folder)

    return drawn


def figure(width: float, height: float) -> Figure:
    """An empty figure on white, which dark pages show as it is."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def plain(axes: Axes, title: str = "") -> None:
    """Light axes with their title at the left."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=10.5)


def canvas(axes: Axes, width: float, height: float) -> None:
    """No axes, units of one box's line of text."""
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()


def box(axes: Axes, at: tuple[float, float], size: tuple[float, float], text: str, *, strong: bool = False) -> None:
    """A box with text in its middle."""
    edge = OURS if strong else "#9a9a9a"
    shape = FancyBboxPatch(
        at, *size, boxstyle="round,pad=0,rounding_size=0.12", facecolor=PALE if strong else "white", edgecolor=edge
    )
    axes.add_patch(shape)
    axes.text(at[0] + size[0] / 2, at[1] + size[1] / 2, text, ha="center", va="center", fontsize=9, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", color: str = INK) -> None:
    """An arrow, what goes along it above its middle."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.1, "shrinkA": 0})
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08, text, ha="center", va="bottom", fontsize=8)


def save(made: Figure, name: str, folder: Path) -> Path:
    """The file, with no date in it."""
    file = folder / f"{name}.svg"
    made.savefig(file, metadata={"Date": None})
    return file
