"""What a log entry says: JSON that another version of the model, or another program, can read and learn from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from models import Decision, FloatArray, Outcome, Prediction
from service.errors import InvalidError
from service.types import Row


class Rows(NamedTuple):
    """Labelled rows as the client sent them.

    Attributes:
        inputs: Input rows.
        targets: One label a row.
        ids: One id a row, ``None`` where a row has none.
        times: One time a row, epoch seconds, ``None`` where a row has none.
    """

    inputs: Sequence[Row]
    targets: Sequence[Any]
    ids: Sequence[str | None] | None = None
    times: Sequence[float | None] | None = None

    def take(self, kept: Sequence[int]) -> "Rows":
        """Some of the rows, in the order of ``kept``."""
        ids, times = self.ids, self.times
        return Rows(
            [self.inputs[index] for index in kept],
            [self.targets[index] for index in kept],
            None if ids is None else [ids[index] for index in kept],
            None if times is None else [times[index] for index in kept],
        )


class Labels(NamedTuple):
    """Labels of rows that were predicted and kept.

    Attributes:
        ids: What the rows were predicted under.
        targets: One label an id.
        times: One time an id, epoch seconds.
        strict: Whether an id that waits for no label is an error; otherwise it is reported and the others are taken.
    """

    ids: Sequence[str | None]
    targets: Sequence[Any]
    times: Sequence[float | None] | None = None
    strict: bool = False


class Logged(NamedTuple):
    """What a replay needs of a feedback entry."""

    rows: Rows
    asked: FloatArray
    decision: Decision
    watched: npt.NDArray[np.bool_] | None


def encode_feedback(
    rows: Rows, outcome: Outcome, asked: FloatArray | None = None, watched: npt.NDArray[np.bool_] | None = None
) -> bytes:
    """A feedback entry.

    Args:
        rows: What was learned.
        outcome: What it showed.
        asked: What had been told with the rows' predictions, where they were made earlier.
        watched: Which rows' inputs were watched then; ``None``: none.

    Raises:
        InvalidError: A value that JSON cannot hold, such as an integer above 64 bits.
    """
    decision = outcome.decision
    entry = {
        "inputs": rows.inputs,
        "targets": rows.targets,
        "ids": rows.ids,
        "times": rows.times,
        "asked": (outcome.prediction.asked if asked is None else asked).tolist(),  # null is a lag not known yet (NaN)
        "watched": None if watched is None else np.flatnonzero(watched).tolist(),
        "decision": {
            "kind": decision.kind,
            "rows_since_change": decision.rows_since_change,
            "statistic": _number(decision.statistic),
            "threshold": _number(decision.threshold),
            "reverted": decision.reverted,
        },
        "made": _made(outcome.prediction),
        "outcome": {
            "loss": _number(outcome.loss),
            "score": _number(outcome.score),
            "initial_loss": _number(outcome.initial_loss),
            "initial_score": _number(outcome.initial_score),
            "action": outcome.action,
            "rows_used": outcome.rows_used,
            "state": outcome.state,
        },
    }
    try:
        return orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InvalidError.at(
            ("inputs",), f"a value cannot be kept ({error}); send numbers of at most 64 bits"
        ) from error


def decode_feedback(payload: bytes) -> Logged:
    """The inverse of ``encode_feedback``, as far as a replay goes."""
    entry = orjson.loads(payload)
    decision = entry["decision"]
    rows = Rows(entry["inputs"], entry["targets"], entry["ids"], entry["times"])
    asked = np.array(entry["asked"], dtype=np.float64).reshape(len(rows.inputs), -1)
    watched = None
    if entry.get("watched") is not None:
        watched = np.isin(np.arange(len(rows.inputs)), entry["watched"])
    return Logged(
        rows,
        asked,
        Decision(
            decision["kind"],
            decision["rows_since_change"],
            float(decision["statistic"]),
            float(decision["threshold"]),
            bool(decision.get("reverted")),
        ),
        watched,
    )


def encode_state(stated: Mapping[str, Any], state: bytes) -> bytes:
    """An entry that put a state in place: what is stated of it as a line of JSON, then the engine's snapshot."""
    return orjson.dumps(stated) + b"\n" + state


def decode_state(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of ``encode_state``."""
    line, _, state = payload.partition(b"\n")
    stated: dict[str, Any] = orjson.loads(line)
    return stated, state


def rows_of(payload: bytes) -> tuple[Rows, dict[str, Any]]:
    """The rows of a feedback entry, and what was predicted: ``predictions``, and ``std`` or ``probability``, one a row.

    Entries of earlier versions did not keep the latter.
    """
    entry = orjson.loads(payload)
    return Rows(entry["inputs"], entry["targets"], entry["ids"], entry["times"]), entry.get("made") or {}


def _made(prediction: Prediction) -> dict[str, Any]:
    """What was predicted, to seven digits, which halves what it takes."""
    made: dict[str, Any] = {"predictions": prediction.predictions}
    if prediction.std is not None:
        made |= {"predictions": _brief(prediction.predictions), "std": _brief(prediction.std)}
    elif prediction.probabilities is not None:
        made["probability"] = _brief([max(row, default=0.0) for row in prediction.probabilities])
    return made


def _brief(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def finite(value: float) -> float | None:
    """A number for an answer: JSON has no infinities."""
    return value if math.isfinite(value) else None


def _number(value: float) -> float | str:
    """A number so that it survives JSON: what is not finite is spelled out."""
    return value if math.isfinite(value) else str(value)
