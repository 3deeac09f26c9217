"""One curve from few rows: a meta-trained start, adapted, and a network that is trained on these rows alone."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import mse_loss

from docs.generating.drawing import FROZEN, OTHER, OURS, SHIPPED, figure, plain, save, styled
from models import Engine, Feedback, FloatArray, read_bundle

ROWS = (0, 5, 10)
STEPS = 1_000
RATE = 0.01
AMPLITUDE, PHASE = 3.0, 0.6


def from_scratch(x: FloatArray, y: FloatArray, grid: FloatArray) -> FloatArray:
    """Answers on the grid of a network of two hidden layers, fitted from a random start by Adam until it fits."""
    torch.manual_seed(0)
    network = Sequential(Linear(1, 40), ReLU(), Linear(40, 40), ReLU(), Linear(40, 1))
    adam = torch.optim.Adam(network.parameters(), RATE)
    given, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    for _ in range(STEPS if len(x) else 0):
        adam.zero_grad()
        mse_loss(network(given), labels).backward()
        adam.step()
    with torch.no_grad():
        answers: FloatArray = network(torch.tensor(grid, dtype=torch.float32))[:, 0].numpy().astype(np.float64)
    return answers


def from_start(x: FloatArray, y: FloatArray, grid: FloatArray) -> FloatArray:
    """Answers on the grid of a stream of the shipped model that has learned the rows."""
    engine = Engine(read_bundle(SHIPPED / "sinusoid.safetensors"))
    stream = engine.create()
    if len(x):
        engine.apply(engine.step([Feedback(stream, x, y)]))
    (answer,) = engine.predict([(stream, grid)])
    return np.array(answer.predictions)


@styled
def draw(folder: Path) -> Path:
    """Three panels: before any row, after five, after ten."""
    chance = np.random.default_rng(3)
    x = chance.uniform(-5, 5, (max(ROWS), 1))
    y = AMPLITUDE * np.sin(x - PHASE)
    grid = np.linspace(-5, 5, 200)[:, None]
    made = figure(9.5, 3.1)
    panels = made.subplots(1, 3, sharey=True)
    for axes, rows in zip(panels, ROWS, strict=True):
        plain(axes, f"after {rows} labelled rows" if rows else "before the first label")
        axes.plot(grid, AMPLITUDE * np.sin(grid - PHASE), color=FROZEN, linestyle="--", label="the client's curve")
        scratch = from_scratch(x[:rows], y[:rows], grid)
        axes.plot(grid, scratch, color=OTHER, label=f"a network from scratch, {STEPS:,} steps on these rows")
        ours = from_start(x[:rows], y[:rows], grid)
        axes.plot(grid, ours, color=OURS, linewidth=2, label="the meta-trained start, adapted")
        axes.plot(x[:rows], y[:rows], "o", color="black", markersize=4.5)
        axes.set_xlabel("x")
        axes.set_ylim(-4.2, 4.2)
    made.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return save(made, "concept-start", folder)


if __name__ == "__main__":
    draw()
