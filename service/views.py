"""Stored values as the API shows them."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, cast

from models import Outcome, Prediction
from service.payload import finite
from service.store import Done, StoredEvent, StreamRecord
from service.types import Event, EventKind, Labelled, Learned, Made, Predicted, StreamInfo, StreamState

_BESIDE = {Predicted: ("state", "adapted"), Learned: ("made",), Labelled: ("made",)}
"""What is not part of the plain answer."""
_NAMES = {
    kind: tuple(field.name for field in fields(kind) if field.name not in _BESIDE.get(kind, ()))
    for kind in (Predicted, Made, Learned, Labelled)
}
FRESH: dict[str, Any] = {"window_rows": 0, "loss": None, "score": None, "state": "new"}
"""Summary of a stream that has not learned anything."""


def moment(epoch_seconds: float) -> datetime:
    """A time as the API shows it."""
    return datetime.fromtimestamp(epoch_seconds, UTC)


def event_of(stream: str, event: StoredEvent) -> Event:
    """An event as the API shows it."""
    return Event(
        id=str(event.id),
        stream=stream,
        revision=event.revision,
        at=moment(event.at),
        kind=cast("EventKind", event.kind),
        detector=event.detector,
        statistic=event.statistic,
        threshold=event.threshold,
        change_row=event.change_row,
        action=event.action,
        rows_used=event.rows_used,
        feature=event.feature,
        shift=event.shift,
    )


def info_of(record: StreamRecord, summary: dict[str, Any]) -> StreamInfo:
    """A stream as the API shows it.

    Args:
        record: The stream.
        summary: ``window_rows``, ``loss``, ``score``, ``state`` and ``serving`` of the same moment.
    """
    drift = record.last_drift
    return StreamInfo(
        stream=record.stream,
        model=record.model,
        model_version=record.model_version,
        stream_version=record.stream_version,
        rows_seen=record.rows_seen,
        window_rows=summary["window_rows"],
        loss=summary["loss"],
        score=summary["score"],
        state=cast("StreamState", summary["state"]),
        serving=summary.get("serving", "adapted"),
        last_drift=None if drift is None else event_of(record.stream, drift),
        config=dict(record.config),
        metadata=dict(record.metadata),
        created_at=moment(record.created_at),
        updated_at=moment(record.updated_at),
    )


def learned(done: Done, outcome: Outcome | None, kept: Sequence[int], rows: int, unknown: list[str] | None) -> Learned:
    """The answer to committed feedback or late labels.

    Args:
        done: The commit.
        outcome: What the batch showed; ``None`` for a reset.
        kept: Indices of the rows that were learned.
        rows: Rows of the request.
        unknown: Ids of late labels that wait for none; ``None`` for feedback.
    """
    record = done.record
    drifts = [event for event in done.events if event.kind == "drift"]
    answer = Learned(
        stream=record.stream,
        accepted=len(kept),
        duplicates=rows - len(kept) - len(unknown or ()),
        rows_seen=record.rows_seen,
        model_version=record.model_version,
        stream_version=record.stream_version,
        loss=None if outcome is None else finite(outcome.loss),
        score=None if outcome is None else finite(outcome.score),
        initial_loss=None if outcome is None else finite(outcome.initial_loss),
        initial_score=None if outcome is None else finite(outcome.initial_score),
        drift=event_of(record.stream, drifts[-1]) if drifts else None,
        state=cast("StreamState", record.state),
        made=None if outcome is None else _made(outcome.prediction, kept, rows),
    )
    return _with_unknown(answer, unknown)


def nothing_new(record: StreamRecord, rows: int, unknown: list[str] | None) -> Learned:
    """The answer to feedback with nothing but duplicates, or to labels that none waits for."""
    answer = Learned(
        stream=record.stream,
        accepted=0,
        duplicates=rows - len(unknown or ()),
        rows_seen=record.rows_seen,
        model_version=record.model_version,
        stream_version=record.stream_version,
        loss=None,
        score=None,
        initial_loss=None,
        initial_score=None,
        drift=None,
        state=cast("StreamState", record.state),
        made=Made([None] * rows),
    )
    return _with_unknown(answer, unknown)


def learned_body(value: Learned, *, with_predictions: bool) -> dict[str, Any]:
    """What was learned, with the predictions made before learning if they were asked for."""
    body = {name: getattr(value, name) for name in _NAMES[type(value)]}
    if with_predictions and value.made is not None:
        body |= present(value.made)
    return body


def present(value: Predicted | Made) -> dict[str, Any]:
    """The fields of an answer that apply."""
    return {name: item for name in _NAMES[type(value)] if (item := getattr(value, name)) is not None}


def _with_unknown(answer: Learned, unknown: list[str] | None) -> Learned:
    if unknown is None:
        return answer
    return Labelled(**{item.name: getattr(answer, item.name) for item in fields(answer)}, unknown=unknown)


def _made(prediction: Prediction, kept: Sequence[int], rows: int) -> Made:
    def spread(values: list[Any] | None) -> list[Any] | None:
        if values is None or len(kept) == rows:
            return values
        found = dict(zip(kept, values, strict=True))
        return [found.get(index) for index in range(rows)]

    return Made(
        spread(prediction.predictions) or [],
        spread(prediction.probabilities),
        prediction.classes,
        spread(prediction.std),
    )
