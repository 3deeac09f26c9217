"""What the service answers, as values. Fields that a newer service adds are left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """Answers for some rows, one item a row.

    Attributes:
        predictions: Numbers, or labels.
        model: Who answered.
        model_version: In which version.
        stream: By which stream; ``None``: the frozen start.
        stream_version: At which revision of it.
        probabilities: (rows, classes), for classification.
        classes: Labels of the probabilities' columns.
        std: Predictive standard deviations, noise included, for regression.
        intervals: [low, high] a row, if they were asked for.
    """

    predictions: list[Any]
    model: str
    model_version: int
    stream: str | None = None
    stream_version: int = 0
    probabilities: list[list[float]] | None = None
    classes: list[Any] | None = None
    std: list[Any] | None = None
    intervals: list[Any] | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a stream; times are RFC 3339."""

    id: str
    stream: str
    revision: int
    at: str
    kind: str
    detector: str | None = None
    statistic: float | None = None
    threshold: float | None = None
    change_row: int | None = None
    action: str | None = None
    rows_used: int | None = None
    feature: str | None = None
    shift: float | None = None


@dataclass(frozen=True)
class Learned:
    """What became of labelled rows; losses are nats before learning, ``unknown`` ids that wait for no label."""

    stream: str
    accepted: int
    duplicates: int
    rows_seen: int
    model_version: int
    stream_version: int
    state: str
    loss: float | None = None
    score: float | None = None
    initial_loss: float | None = None
    initial_score: float | None = None
    drift: Event | None = None
    unknown: list[str] = field(default_factory=list)
    predictions: list[Any] | None = None
    probabilities: list[Any] | None = None
    classes: list[Any] | None = None
    std: list[Any] | None = None
    replayed: bool = False
    """Whether this is the answer to an earlier try of the same request."""


@dataclass(frozen=True)
class StreamInfo:
    """Where a stream stands."""

    stream: str
    model: str
    model_version: int
    stream_version: int
    rows_seen: int
    window_rows: int
    loss: float | None
    score: float | None
    state: str
    last_drift: Event | None
    config: dict[str, Any]
    metadata: dict[str, Any]
    created_at: str
    updated_at: str
    serving: str = "adapted"


@dataclass(frozen=True)
class Revision:
    """What one commit did to a stream."""

    revision: int
    kind: str
    at: str
    rows: int
    rows_seen: int
    loss: float | None = None
    score: float | None = None
    initial_loss: float | None = None
    initial_score: float | None = None
    state: str | None = None
    restored: int | None = None
    model_version: int | None = None


@dataclass(frozen=True)
class Restored:
    """Where a roll-back led."""

    stream: str
    model_version: int
    stream_version: int
    restored: int
    state: str


@dataclass(frozen=True)
class ModelInfo:
    """A model; everything but the versions describes the active one."""

    name: str
    versions: list[int]
    active_version: int | None
    task: str
    features: list[dict[str, Any]]
    classes: list[Any] | None
    experts: list[dict[str, Any]]
    detector: dict[str, Any]
    scores: dict[str, Any]


@dataclass(frozen=True)
class Webhook:
    """Who is told of events; ``secret`` only in the answer to its creation."""

    id: str
    url: str
    events: list[str]
    created_at: str
    active: bool
    secret: str | None = None


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to."""

    upload: str
    rows: int = 0
    batches: int = 0
    accepted: int = 0
    duplicates: int = 0


def read(kind: type[T], stated: Mapping[str, Any], **further: Any) -> T:
    """A reply out of its JSON."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]  # all kinds are dataclasses
    known = {name: value for name, value in stated.items() if name in names} | further
    for name in ("drift", "last_drift"):
        if known.get(name) is not None:
            known[name] = read(Event, known[name])
    return kind(**known)
