"""Architecture search: let held-out rows choose the network, within a budget.

How large should the body be? `train --search` tries eight networks, from one hidden layer of 16 to three of 128, by
successive halving: all of them shortly, the better half twice as long, and so on. What counts is the meta-validation
loss on rows that no candidate has learned from. The budget bounds everything: the search takes up to 40% of it.

Use it when the default (64, 32) is not obviously right: few rows, or a law with many bends as here.

    .venv/bin/python docs/examples/search.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common import acclimate, write_csv
from models import read_bundle


def waves(machines: int, rows: int, rng: np.random.Generator) -> list[list[object]]:
    """Rows of machines whose output is a mixture of three waves of the angle, each mixing its own way."""
    mix = rng.normal(size=(machines, 3))
    made: list[list[object]] = []
    for t in range(machines * rows):
        machine = t % machines
        angle, load = rng.uniform(-3, 3), rng.uniform(0, 1)
        shape = np.array([np.sin(angle), np.sin(2 * angle) * load, np.cos(3 * angle)])
        made.append(
            [t, f"machine-{machine}", round(angle, 4), round(load, 4), mix[machine] @ shape + 0.1 * rng.normal()]
        )
    return made


def main(folder: Path, machines: int = 40, rows: int = 150, budget: float = 4.0) -> dict[str, float]:
    """Search and train; returns the chosen network's validation loss beside the others'."""
    header = ["t", "machine", "angle", "load", "output"]
    data = write_csv(folder / "waves.csv", header, waves(machines, rows, np.random.default_rng(4)))
    out = folder / "waves.safetensors"
    acclimate(
        *("train", "--data", data, "--target", "output", "--stream-column", "machine", "--time-column", "t"),
        *("--search", "--lag-target", 0, "--algorithm", "bayes_head", "--budget", budget, "--out", out),
    )
    spec = read_bundle(out).spec
    tried = spec.provenance["search"]
    chosen = list(spec.experts[0].hyper_parameters["hidden"])
    print(f"\ntried {len(tried)} short runs; chosen: {chosen}")
    print(json.dumps(tried[0]), "…")
    return {"tried": len(tried), "last_round": float(chosen in [list(each["hidden"]) for each in tried[-2:]])}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))
