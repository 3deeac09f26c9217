"""Predictions that wait for their labels: how a row is kept, answered again, and scored when its label comes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from models import Engine, FloatArray, Outcome, Prediction, row_losses, score_rows
from service.errors import InvalidError
from service.predicting import Answered
from service.types import Predicted, Row


class Held(NamedTuple):
    """One row as it was predicted.

    Attributes:
        input: The row as the client sent it.
        asked: What the label has to bring along (``Prediction.asked``); ``None`` for NaN.
        model_version: Version of the model that predicted.
        stream_version: The stream's revision then.
        interval: Coverage that was asked for.
        prediction: What was answered.
        probabilities: Of the classes (classification).
        std: Standard deviation, noise included (regression).
        bounds: Low and high, if asked for (regression).
        classes: Those of the probabilities, where they are the stream's own; ``None`` where they are the model's.
        unnamed: How probable another label was, where classes are the stream's own.
    """

    input: Row
    asked: list[float | None]
    model_version: int
    stream_version: int
    interval: float | None
    prediction: Any
    probabilities: list[float] | None
    std: Any
    bounds: list[Any] | None
    classes: list[Any] | None = None
    unnamed: float | None = None


def hold(answer: Answered, inputs: Sequence[Row], interval: float | None) -> list[Held]:
    """The rows of a prediction, one by one."""
    said = answer.predicted

    def at(values: list[Any] | None, index: int) -> Any:
        return None if values is None else values[index]

    return [
        Held(
            row,
            asked,
            said.model_version,
            said.stream_version,
            interval,
            said.predictions[index],
            at(said.probabilities, index),
            at(said.std, index),
            at(said.intervals, index),
            None if answer.unnamed is None else said.classes,
            at(answer.unnamed, index),
        )
        for index, (row, asked) in enumerate(zip(inputs, answer.asked.tolist(), strict=True))
    ]


def encode_held(held: Held) -> bytes:
    """A row to keep.

    Raises:
        InvalidError: A value that JSON cannot hold, such as an integer above 64 bits.
    """
    try:
        return orjson.dumps(held._asdict())
    except orjson.JSONEncodeError as error:
        raise InvalidError.at(
            ("inputs",), f"a value cannot be kept ({error}); send numbers of at most 64 bits"
        ) from error


def decode_held(payload: bytes) -> Held:
    """The inverse of ``encode_held``."""
    return Held(**orjson.loads(payload))


def same_input(held: Held, row: Row) -> bool:
    """Whether a row is the one that was predicted, in the same form."""
    try:
        return bool(held.input == orjson.loads(orjson.dumps(row)))
    except orjson.JSONEncodeError:
        return False


def answer_of(stream: str, model: str, classes: list[Any] | None, rows: Sequence[Held]) -> Predicted:
    """The rows as one answer; its revision is that of the latest of them."""
    latest = max(rows, key=lambda row: row.stream_version)
    known = _padded(_prediction(rows, classes))
    return Predicted(
        stream,
        model,
        latest.model_version,
        latest.stream_version,
        known.predictions,
        known.probabilities,
        known.classes,
        known.std,
        known.intervals,
    )


def asked_of(rows: Sequence[Held]) -> FloatArray:
    """(rows, L + K) what the labels bring along; NaN is a lag value that was not known yet."""
    width = len(rows[0].asked) if rows else 0
    return np.array([row.asked for row in rows], dtype=np.float64).reshape(len(rows), width)


def scored(engine: Engine, outcome: Outcome, rows: Sequence[Held], targets: FloatArray) -> Outcome:
    """What a late batch showed: the loss and the score are those of the predictions that were answered.

    Args:
        engine: Of the stream.
        outcome: Of learning the rows now. Its initial figures stand, since the frozen start changes with lags alone.
        rows: The rows as they were predicted.
        targets: (rows, O) their labels, encoded.
    """
    spec = engine.model.spec
    said = _prediction(rows, outcome.prediction.classes)
    if spec.target.ways:
        index = {(type(label), label): float(slot) for slot, label in enumerate(said.classes or ())}
        answered = np.array([index.get((type(label), label), -1.0) for label in said.predictions])[:, None]
    else:
        answered = engine.encode_targets(said.predictions)
    score, loss = score_rows(spec.task, answered, targets).mean(), row_losses(spec, said, targets).mean()
    return outcome._replace(prediction=_padded(said), loss=float(loss), score=float(score))


def _padded(said: Prediction) -> Prediction:
    """Rows that were answered before the stream had named all its classes get none of the others' probability."""
    if said.unnamed is None or said.probabilities is None:
        return said
    width = len(said.classes or ())
    return said._replace(probabilities=[[*row, *[0.0] * (width - len(row))] for row in said.probabilities])


def _prediction(rows: Sequence[Held], classes: list[Any] | None) -> Prediction:
    def column(values: list[Any]) -> list[Any] | None:
        return None if values[0] is None else values

    own = [row.classes for row in rows if row.classes is not None]
    return Prediction(
        [row.prediction for row in rows],
        column([row.probabilities for row in rows]),
        max(own, key=len) if own else classes,
        column([row.std for row in rows]),
        column([row.bounds for row in rows]),
        asked_of(rows),
        column([row.unnamed for row in rows]),
    )
