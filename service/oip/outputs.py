"""Predictions as output tensors, and what is said beside them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import orjson

from service.oip.messages import Asked, Output, Reply, check_wanted
from service.oip.tensors import BOOL, BYTES
from service.types import Learned, Made, ModelInfo, Predicted

PREDICTIONS, PROBABILITIES, STD = "predictions", "probabilities", "std"
NUMBER = "FP64"


def output_names(info: ModelInfo) -> tuple[str, str]:
    """The outputs of a model."""
    return (PREDICTIONS, STD if info.classes is None else PROBABILITIES)


def requested(asked: Asked, info: ModelInfo) -> None:
    """Raise InvalidError where an output is asked for that the model does not have; before anything is done."""
    check_wanted(asked, output_names(info))


def label_datatype(info: ModelInfo) -> str:
    """Datatype of a model's predictions: that of its classes where they are of one kind, otherwise text."""
    if info.classes is None:
        return NUMBER
    kinds = set() if info.ways else set(map(type, info.classes))
    if kinds == {bool}:
        return BOOL
    return "INT64" if kinds == {int} else BYTES


def predicted_reply(answer: Predicted, info: ModelInfo) -> Reply:
    """The reply to infer; what a frozen start answers says that it is not adapted."""
    stated = {
        "stream_version": answer.stream_version,
        "adapted": answer.adapted,
        "drift_state": answer.state or "new",
    }
    return Reply(answer.model, answer.model_version, stated, _outputs(answer, info))


def learned_reply(answer: Learned, info: ModelInfo) -> Reply:
    """The reply to learn: the predictions made before learning, and what was learned; nulls are left out."""
    told = {
        "stream_version": answer.stream_version,
        "adapted": True,
        "drift_state": answer.state,
        "accepted": answer.accepted,
        "rows_seen": answer.rows_seen,
        "loss": answer.loss,
        "score": answer.score,
        "initial_loss": answer.initial_loss,
        "initial_score": answer.initial_score,
        "event_id": None if answer.drift is None else answer.drift.id,
    }
    stated = {name: value for name, value in told.items() if value is not None}
    outputs = [] if answer.made is None else _outputs(answer.made, info)
    return Reply(info.name, answer.model_version, stated, outputs)


def _outputs(made: Predicted | Made, info: ModelInfo) -> list[Output]:
    rows, datatype = len(made.predictions), label_datatype(info)
    if info.classes is None:
        return [_numbers(PREDICTIONS, made.predictions), _numbers(STD, made.std or [])]
    labels = list(map(_text, made.predictions)) if datatype == BYTES else made.predictions
    classes = made.classes or []
    probabilities = list(chain.from_iterable(made.probabilities or ()))
    order = {"classes": orjson.dumps(classes).decode()}
    return [
        Output(PREDICTIONS, datatype, (rows,), labels),
        Output(PROBABILITIES, NUMBER, (rows, len(classes)), probabilities, order),
    ]


def _numbers(name: str, values: Sequence[Any]) -> Output:
    """One number a row, or a list of them."""
    if values and isinstance(values[0], list):
        return Output(name, NUMBER, (len(values), len(values[0])), list(chain.from_iterable(values)))
    return Output(name, NUMBER, (len(values),), values)


def _text(label: Any) -> str:
    """A label as BYTES, which have no null: a stream that has named no class yet predicts the empty text."""
    return "" if label is None else str(label)
