"""Values that the service passes around; field names are the HTTP contract's, so that routes dump them as they are.

Times are aware datetimes in UTC. A field that does not apply is ``None`` and is left out or null in an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

Row: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""One input row as sent: values in the model's feature order, or an object by feature name."""
StreamState: TypeAlias = Literal["new", "stable", "warning", "drifted"]
EventKind: TypeAlias = Literal["drift", "warning", "reset", "activate", "rollback", "revert"]


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """One input column of a model."""

    name: str
    kind: Literal["numeric", "categorical"]
    missing: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A registered model; everything but the versions describes the active version, or the newest where none is.

    Attributes:
        name: Name given at registration.
        versions: Numbers of all versions kept, ascending.
        active_version: The version that streams are bound to; ``None`` before one was activated.
        task: ``regression`` or ``classification``.
        features: Inputs in the order of a row.
        classes: Class labels in the order of ``probabilities``; ``None`` for regression; empty where they are open.
        ways: Where each stream names its classes itself, how many at most; ``None`` where it does not.
        experts: ``{"name", "learner", "hyper_parameters"}`` for each.
        detector: ``{"name", "settings"}``.
        scores: Meta-validation scores from the bundle's provenance.
        target: Column that was predicted in training.
        lagged_targets: Whether a stream's own last known labels are inputs, too.
        outputs: Numbers of a label; 1 for classification.
        stream_column: Column that named the streams in training.
        time_column: Column that ordered the rows in training.
    """

    name: str
    versions: list[int]
    active_version: int | None
    task: str
    features: list[FeatureInfo]
    classes: list[Any] | None
    experts: list[dict[str, Any]]
    detector: dict[str, Any]
    scores: dict[str, Any]
    target: str
    lagged_targets: bool
    ways: int | None = None
    outputs: int = 1
    stream_column: str | None = None
    time_column: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """Answer to an uploaded bundle: which version of the model it is."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a stream and that its log remembers.

    Attributes:
        id: An integer in decimal; grows with time, never used twice.
        stream: Stream that it happened to.
        revision: ``stream_version`` of the commit that it belongs to.
        at: Commit time.
        kind: What happened.
        detector: Name of the detector (``drift`` and ``warning``).
        statistic: The detector's statistic, ``None`` where it is not finite.
        threshold: The level that it is compared with, ``None`` where there is none.
        change_row: Index (from 0, over all rows the stream ever learned) of the first row after the estimated change.
        action: ``readapt`` where the stream was adapted anew from the meta-initialization; of a ``revert``, what is
            served from here on: ``initial``, the frozen start, or ``adapted``.
        rows_used: Rows that the new adaptation used.
        feature: The input that moved most clearly (``warning`` of the detector ``inputs``).
        shift: By how many of its standard deviations in this stream, as far as is known then.
    """

    id: str
    stream: str
    revision: int
    at: datetime
    kind: EventKind
    detector: str | None = None
    statistic: float | None = None
    threshold: float | None = None
    change_row: int | None = None
    action: str | None = None
    rows_used: int | None = None
    feature: str | None = None
    shift: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done in one interval.

    Attributes:
        at: Its end, epoch seconds.
        learned: Rows learned.
        predicted: Rows predicted.
        drifts: Alarms.
        warnings: Warnings.
        learning: Ticks of learning by the CPU time they took: those up to each of ``bucket_seconds``, then the others.
        commits: The same of commits, by the time until they were on disk.
    """

    at: float
    learned: int
    predicted: int
    drifts: int
    warnings: int
    learning: list[int]
    commits: list[int]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """How many streams are bound to a version of a model."""

    model: str
    version: int
    streams: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is, and what was done lately.

    Attributes:
        at: Now.
        states: Streams by drift state; at most a few seconds old.
        hot: Streams in memory.
        models: Streams by version of a model.
        sample_seconds: Length of a sample's interval.
        bucket_seconds: Bounds of the samples' buckets.
        samples: One an interval, oldest first, for an hour.
        events: The latest events of all streams, latest first.
    """

    at: datetime
    states: dict[str, int]
    hot: int
    models: list[ModelUse]
    sample_seconds: int
    bucket_seconds: list[float]
    samples: list[Sample]
    events: list[Event]


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """A row that a stream has learned.

    Attributes:
        row: Its number, from 0, over all rows that the stream ever learned.
        revision: ``stream_version`` of the commit that it belongs to.
        at: Commit time.
        input: The row as it was sent.
        target: Its label.
        prediction: What was predicted before it was learned; ``None`` where it was not kept.
        std: Predictive standard deviation of that (regression).
        probability: Of the class that was predicted (classification).
        id: The client's name for the row.
        time: The client's time of the row, epoch seconds.
    """

    row: int
    revision: int
    at: datetime
    input: Any
    target: Any
    prediction: Any = None
    std: Any = None
    probability: float | None = None
    id: str | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """What one commit did to a stream.

    Attributes:
        revision: ``stream_version`` that it made.
        kind: ``feedback``, ``labels``, ``reset``, ``rollback``, ``import`` or ``activate``.
        at: Commit time.
        rows: Rows learned.
        rows_seen: Rows that the stream had learned by then, over its whole life.
        loss: Mean negative log-likelihood of the rows in nats, before learning them.
        score: Their accuracy, or mean absolute error, before learning them.
        initial_loss: The same of the frozen start.
        initial_score: The same of the frozen start.
        state: The stream's drift state afterwards; ``None`` after a reset.
        restored: Revision that a ``rollback`` went back to.
        model_version: Version of the model that an ``activate`` bound the stream to.
    """

    revision: int
    kind: str
    at: datetime
    rows: int
    rows_seen: int
    loss: float | None = None
    score: float | None = None
    initial_loss: float | None = None
    initial_score: float | None = None
    state: StreamState | None = None
    restored: int | None = None
    model_version: int | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """Answer to a roll-back.

    Attributes:
        stream: Which.
        model_version: Version of the model the stream is bound to.
        stream_version: The new revision.
        restored: The revision that it went back to.
        state: The stream's drift state.
    """

    stream: str
    model_version: int
    stream_version: int
    restored: int
    state: StreamState


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """Who is told of events.

    Attributes:
        id: Its name.
        url: Where it is called.
        events: Kinds of events that it is told of.
        created_at: Since when.
        active: False once its URL has answered 410.
        secret: What calls are signed with; only in the answer to its creation.
    """

    id: str
    url: str
    events: list[str]
    created_at: datetime
    active: bool
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Where a stream stands.

    Attributes:
        stream: Its id.
        model: Model that it is bound to.
        model_version: Version of the model that it is bound to.
        stream_version: Its revision: 0 at creation, +1 per committed change.
        rows_seen: Rows learned over its whole life.
        window_rows: Rows retained in memory for re-adaptation now.
        loss: Rolling mean negative log-likelihood in nats, before learning; ``None`` before the first row.
        score: Rolling accuracy, or mean absolute error; ``None`` before the first row.
        state: ``new``, ``stable``, ``warning`` or ``drifted``.
        serving: ``adapted``, or ``initial`` while the frozen start does better than what the stream has learned.
        last_drift: The latest event of kind ``drift``.
        config: The stream's own settings, those that were given.
        metadata: The client's own notes.
        created_at: Time of creation.
        updated_at: Time of the last committed change.
    """

    stream: str
    model: str
    model_version: int
    stream_version: int
    rows_seen: int
    window_rows: int
    loss: float | None
    score: float | None
    state: StreamState
    serving: Literal["adapted", "initial"]
    last_drift: Event | None
    config: dict[str, Any]
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Predicted:
    """Answer to a predict; lists have one item a row.

    ``probabilities`` and ``classes`` belong to classification, ``std`` (and ``intervals`` if asked) to regression. The
    frozen start answers with ``stream`` ``None`` and ``stream_version`` 0. Where classes are open, ``classes`` are
    those that the stream has named; before it has named any, and for the frozen start, predictions are null.
    ``state`` is the stream's drift state at that moment, and ``adapted`` whether its own parameters answered, for
    whoever wants it; neither is part of the plain answer.
    """

    stream: str | None
    model: str
    model_version: int
    stream_version: int
    predictions: list[Any]
    probabilities: list[list[float]] | None = None
    classes: list[Any] | None = None
    std: list[Any] | None = None
    intervals: list[Any] | None = None
    state: StreamState | None = field(default=None, compare=False, repr=False)
    adapted: bool = field(default=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Made:
    """Predictions made before learning, one item a row of the request; ``None`` for a row that was a duplicate."""

    predictions: list[Any]
    probabilities: list[Any] | None = None
    classes: list[Any] | None = None
    std: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """Answer to feedback. ``loss`` to ``initial_score`` are ``None`` when every row was a duplicate.

    Attributes:
        stream: Stream that learned.
        accepted: Rows learned.
        duplicates: Rows skipped, since their id was learned before.
        rows_seen: Rows learned over the stream's whole life.
        model_version: Version of the model the stream is bound to.
        stream_version: The stream's revision after the commit.
        loss: Mean negative log-likelihood of the batch in nats, before learning it.
        score: Accuracy, or mean absolute error, of the batch, before learning it.
        initial_loss: The same of the frozen start.
        initial_score: The same of the frozen start.
        drift: The drift event, if the batch raised an alarm; a warning shows in ``state`` and among the events.
        state: The stream's drift state afterwards.
        made: For ``?return=predictions``; not part of the plain answer.
    """

    stream: str
    accepted: int
    duplicates: int
    rows_seen: int
    model_version: int
    stream_version: int
    loss: float | None
    score: float | None
    initial_loss: float | None
    initial_score: float | None
    drift: Event | None
    state: StreamState
    made: Made | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Labelled(Learned):
    """Answer to late labels; ``loss`` and ``score`` are those of the predictions that were answered then.

    Attributes:
        unknown: Ids that wait for no label, or no more; the other labels were taken.
    """

    unknown: list[str] = field(default_factory=list)
