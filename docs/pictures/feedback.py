"""The way of one feedback batch, from the request to the answer."""

from pathlib import Path

from docs.generating.drawing import DRIFT, arrow, box, canvas, figure, save, styled

STEPS = (
    "route: limits, key,\nrequest id",
    "check rows; encode;\nadd lagged labels",
    "queue: one batch\nof a stream a tick",
    "step: all streams\nof the tick at once",
    "commit: rows and\ndecision, synced",
    "answer 200; the new\nstate is served",
)
INSIDE = (
    "predict from\nthe state before",
    "score: loss,\nerror",
    "challenger ahead\nby 8 nats?",
    "learn the rows",
    "finite?\nelse the old stays",
)


@styled
def draw(folder: Path) -> Path:
    """Two lines: the whole way, and what is inside its step."""
    made = figure(10.8, 3.6)
    axes = made.subplots()
    canvas(axes, 12, 4.3)
    for place, text in enumerate(STEPS):
        box(axes, (0.1 + 2.0 * place, 2.9), (1.65, 0.85), text, strong=place == 3)
        if place:
            arrow(axes, (2.0 * place - 0.25, 3.32), (2.0 * place + 0.1, 3.32))
    axes.plot((6.1, 0.9), (2.9, 1.75), color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.plot((7.75, 11.1), (2.9, 1.75), color="#bbbbbb", linewidth=0.8, linestyle="--")
    for place, text in enumerate(INSIDE):
        box(axes, (0.9 + 2.1 * place, 0.9), (1.75, 0.85), text)
        if place:
            arrow(axes, (0.55 + 2.1 * place, 1.32), (0.9 + 2.1 * place, 1.32), "no" * (place == 3))
    axes.annotate(
        "yes: an alarm. The stream becomes the challenger,\nwhich has learned only the rows since the change",
        (7.5, 0.9), (5.4, 0.2), fontsize=8.5, color=DRIFT, va="center", ha="center",
        arrowprops={"arrowstyle": "-|>", "color": DRIFT, "connectionstyle": "arc3,rad=0.25"},
    )  # fmt: skip
    return save(made, "concept-feedback", folder)


if __name__ == "__main__":
    draw()
