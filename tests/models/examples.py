"""Small models and tables for the tests of runs over files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models import Engine, Model, write_bundle
from models.plan import Plan
from models.tasks import Table, read_table
from models.types import DetectorChoice, Expert, Feature, Lags, ModelSpec, Target

HEAD = Expert("head", "bayes_head", {"hidden": [8, 4], "tau_rows": [50.0, 400.0]})


def small_model(
    task: str = "regression", lags: Lags | None = None, name: str = "small", ways: int = 0, expert: Expert = HEAD
) -> Model:
    """An untrained model of the features ``a`` and ``b``, a linear head on a random body, fixed by its seed.

    With ``ways`` its classes are open.
    """
    classes = Target("y", ways=ways) if ways else Target("y", classes=("no", "yes"))
    spec = ModelSpec(
        name=name,
        task="classification" if task == "classification" else "regression",
        features=(Feature("a"), Feature("b")),
        target=classes if task == "classification" else Target("y"),
        experts=(expert,),
        lags=lags or Lags(),
        provenance={"stream_column": "shop", "time_column": "t"},
    )
    return untrained(spec)


def hasty_model() -> Model:
    """One whose steps are too large for mere noise, so that its frozen start does better there; without a detector."""
    steps = Expert("steps", "maml", {"hidden": (8,), "steps": 5, "inner_lr": 0.4})
    model = small_model(name="hasty", expert=steps)
    return Model(replace(model.spec, detector=DetectorChoice("never", {}), window_rows=4), model.meta)


def untrained(spec: ModelSpec) -> Model:
    """The model of a specification as it is before training, fixed by its seed."""
    tensors: dict[str, torch.Tensor] = {}
    for name, learner in Plan.of(spec).learners.items():
        meta = learner.meta_init(torch.Generator().manual_seed(0))
        tensors |= {f"{name}.{key}": value for key, value in meta.items()}
    return Model(spec, tensors)


def older_bundle(model: Model) -> bytes:
    """The model's file as it was written before headers had a checksum."""
    data = write_bundle(model)
    start = data.index(b'\\"header_checksum')
    older = data[8:start] + data[data.index(b",", start) + 2 :]
    return (int.from_bytes(data[:8], "little") - len(data) + 8 + len(older)).to_bytes(8, "little") + older


def small_engine(task: str = "regression", lags: Lags | None = None) -> Engine:
    """An engine of ``small_model``."""
    return Engine(small_model(task, lags))


def write_rows(path: Path, rows: int = 120, streams: int = 3, task: str = "regression", seed: int = 0) -> Path:
    """A CSV file of streams whose target is a·w + b with a w of each stream's own that jumps halfway."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(streams, 2))
    lines = ["t,shop,a,b,y"]
    for t in range(rows):
        stream = int(rng.integers(streams))
        a, b = rng.normal(size=2).round(4)
        value = weight[stream, int(t > rows // 2)] * a + b + 0.1 * rng.normal()
        label = ("yes" if value > 0 else "no") if task == "classification" else f"{value:.6f}"
        lines.append(f"{t},shop-{stream},{a},{b},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def small_table(folder: Path, rows: int = 120, streams: int = 3, task: str = "regression") -> Table:
    """``write_rows``, read back."""
    file = write_rows(folder / f"{task}.csv", rows, streams, task)
    return read_table([file], target="y", stream_column="shop", time_column="t")
