"""Ticks, commits and revisions: three streams through three ticks."""

from pathlib import Path

from docs.generating.drawing import OURS, arrow, box, canvas, figure, save, styled

STREAMS = ("shop-1", "shop-2", "shop-3")
TICKS = ((0, 1), (0, 1, 2), (1, 2))
"""Streams that have a batch in each tick."""
LEFT, WIDTH, STEP = 1.6, 2.4, 3.0


@styled
def draw(folder: Path) -> Path:
    """Streams from top to bottom, time from left to right."""
    made = figure(9.5, 3.7)
    axes = made.subplots()
    canvas(axes, 11, 5.3)
    revisions = [0] * len(STREAMS)
    for line, name in enumerate(STREAMS):
        axes.text(0.1, 3.7 - line, f"{name}\nrevision 0", va="center", fontsize=9)
        axes.plot((1.35, 10.8), (3.7 - line, 3.7 - line), color="#cccccc", linewidth=0.8, zorder=0)
    for tick, streams in enumerate(TICKS):
        left = LEFT + tick * STEP
        axes.text(left + WIDTH / 2, 4.75, f"tick {tick + 1}: one batched step", ha="center", fontsize=9.5, color=OURS)
        for stream in streams:
            revisions[stream] += 1
            box(axes, (left, 3.4 - stream), (WIDTH, 0.6), f"predict, score, learn → {revisions[stream]}", strong=True)
        box(axes, (left, 0.35), (WIDTH, 0.6), "commit: all rows of the tick,\nsynced; then the answers")
        arrow(axes, (left + WIDTH / 2, 1.38), (left + WIDTH / 2, 0.97))
    axes.text(
        0.1, 4.75, "at most one batch\nof a stream a tick", va="center", fontsize=8.5, color="#555555", linespacing=1.3
    )
    return save(made, "concept-revisions", folder)


if __name__ == "__main__":
    draw()
