"""What the requests say: rows and targets for any served model, made before the run starts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from loadtest.schedule import Schedule

INPUT_RANGE = 5.0
"""Numeric inputs are uniform in ± this: the sinusoid task's range, five standard deviations of a standardised one."""


class Request(NamedTuple):
    """One request, ready to send: POST ``body`` to ``path``."""

    path: str
    body: bytes

    def raw(self, host: str) -> bytes:
        """All its bytes, for clients that know no HTTP."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body


class Shape(NamedTuple):
    """What a model takes.

    Attributes:
        kinds: ``numeric`` or ``categorical`` of each feature.
        classes: Class labels; empty for regression.
        outputs: Numbers of one regression target; 0 says that a target is a bare number.
    """

    kinds: tuple[str, ...]
    classes: tuple[Any, ...]
    outputs: int

    @classmethod
    def of(cls, model: Mapping[str, Any], example: Any) -> "Shape":
        """The shape from ``GET /v1/models/{model}`` and one prediction of that model."""
        return cls(
            kinds=tuple(feature["kind"] for feature in model["features"]),
            classes=tuple(model.get("classes") or range(model.get("ways") or 0)),
            outputs=len(example) if isinstance(example, list) else 0,
        )


class World(NamedTuple):
    """Each stream's own law, so that there is something to adapt to: y = amplitude · sin(x₀ + phase).

    Attributes:
        amplitude: (streams,)
        phase: (streams,)
    """

    amplitude: np.ndarray[Any, np.dtype[np.float64]]
    phase: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def draw(cls, streams: int, rng: np.random.Generator) -> "World":
        """Amplitudes in [0.1, 5], phases in [0, π], as in the few-shot sinusoid papers."""
        return cls(rng.uniform(0.1, 5.0, streams), rng.uniform(0.0, np.pi, streams))

    def rows(self, stream: int, rows: int, shape: Shape, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
        """``rows`` inputs and their targets; a class is the place of y between its bounds."""
        x = rng.uniform(-INPUT_RANGE, INPUT_RANGE, (rows, max(len(shape.kinds), 1)))  # (rows, features)
        y = self.amplitude[stream] * np.sin(x[:, 0] + self.phase[stream]) + rng.normal(0.0, 0.1, rows)
        inputs = [[_value(kind, v) for kind, v in zip(shape.kinds, row, strict=False)] for row in x.tolist()]
        if shape.classes:
            place = np.clip((y / self.amplitude[stream] + 1) / 2, 0.0, 1.0 - 1e-9)
            return inputs, [shape.classes[int(p * len(shape.classes))] for p in place]
        values = [round(float(v), 6) for v in y]
        return inputs, [[value] * shape.outputs for value in values] if shape.outputs else values


def predict_request(stream: str, inputs: Sequence[Any]) -> Request:
    """A prediction for a stream."""
    return Request(f"/v1/streams/{stream}/predict", orjson.dumps({"inputs": inputs}))


def feedback_request(stream: str, inputs: Sequence[Any], targets: Sequence[Any]) -> Request:
    """Labelled rows for a stream."""
    return Request(f"/v1/streams/{stream}/feedback", orjson.dumps({"inputs": inputs, "targets": targets}))


def lessons(
    names: Sequence[str], model: str, world: World, shape: Shape, *, labelled: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """What each stream learns first, as items of ``POST /v1/feedback``, which creates it; ``labelled`` rows, >= 1."""
    drawn = (world.rows(number, labelled, shape, rng) for number in range(len(names)))
    return [
        {"stream": name, "model": model, "inputs": inputs, "targets": targets}
        for name, (inputs, targets) in zip(names, drawn, strict=True)
    ]


def lines(stream: str, model: str, inputs: Sequence[Any], targets: Sequence[Any]) -> bytes:
    """Labelled rows as lines of an upload to many streams."""
    return b"".join(
        orjson.dumps(
            {"stream": stream, "model": model, "input": row, "target": target}, option=orjson.OPT_APPEND_NEWLINE
        )
        for row, target in zip(inputs, targets, strict=True)
    )


def build(
    schedule: Schedule, names: Sequence[str], world: World, shape: Shape, *, rows: int, rng: np.random.Generator
) -> list[Request]:
    """The requests of a schedule, in its order.

    Args:
        schedule: Which stream, and whether feedback.
        names: Stream ids by number.
        world: The streams' laws.
        shape: What the model takes.
        rows: Rows a request, >= 1.
        rng: Draws the rows.
    """
    requests = []
    for stream, is_feedback in zip(schedule.streams.tolist(), schedule.feedback.tolist(), strict=True):
        inputs, targets = world.rows(stream, rows, shape, rng)
        name = names[stream]
        requests.append(feedback_request(name, inputs, targets) if is_feedback else predict_request(name, inputs))
    return requests


def _value(kind: str, drawn: float) -> float | str:
    """A number as it is, or one of a few category names."""
    return round(drawn, 6) if kind == "numeric" else f"c{int(drawn)}"
