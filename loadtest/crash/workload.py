"""What each stream is fed: a function of the seed, the stream and the number of the operation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS_MAX = 4
RESET_SHARE = 0.04
JUMP_EVERY = 25


@dataclass(frozen=True)
class Model:
    """What a workload needs to know about a served model, from ``GET /v1/models``."""

    name: str
    task: str
    features: tuple[dict[str, Any], ...]
    classes: tuple[Any, ...]

    @classmethod
    def of(cls, described: dict[str, Any]) -> "Model":
        """A model as the server describes it."""
        return cls(
            described["name"],
            described["task"],
            tuple(described["features"]),
            tuple(described["classes"] or range(described["ways"] or 0)),
        )


@dataclass(frozen=True)
class Operation:
    """One change of a stream.

    Attributes:
        number: Which operation of the stream it is.
        body: The feedback request; ``None`` for a reset.
    """

    number: int
    body: dict[str, Any] | None

    @property
    def rows(self) -> int:
        """Rows that it teaches."""
        return 0 if self.body is None else len(self.body["inputs"])


def operation(model: Model, seed: int, stream: int, number: int) -> Operation:
    """The same arguments give the same operation; labels follow a rule that jumps now and then."""
    rng = np.random.default_rng((seed, stream, number))
    if number and rng.random() < RESET_SHARE:
        return Operation(number, None)
    rows = int(rng.integers(1, ROWS_MAX + 1))
    inputs = [row(model, rng) for _ in range(rows)]
    slope = np.random.default_rng((seed, stream, number // JUMP_EVERY)).normal(scale=4.0)
    targets = [label(model, slope * score(each) + 0.1 * float(rng.normal())) for each in inputs]
    ids = [f"{number}-{index}" for index in range(rows)]
    return Operation(number, {"inputs": inputs, "targets": targets, "ids": ids})


def probe(model: Model, seed: int) -> dict[str, Any]:
    """Rows that every stream is asked in the end."""
    rng = np.random.default_rng((seed, 10**6))
    return {"inputs": [row(model, rng) for _ in range(5)]}


def row(model: Model, rng: np.random.Generator) -> list[Any]:
    """Values in the model's feature order."""
    return [
        round(float(rng.normal()), 4) if feature["kind"] == "numeric" else str(rng.choice(feature["categories"]))
        for feature in model.features
    ]


def score(values: list[Any]) -> float:
    """A number that the labels depend on."""
    numbers = [value for value in values if isinstance(value, float)]
    return numbers[0] if numbers else float(len(values[0]))


def label(model: Model, value: float) -> Any:
    """A label of the model's task."""
    if model.task == "regression":
        return round(value, 4)
    return model.classes[int(abs(value) * 2) % len(model.classes)]
