"""What a store keeps and promises. The truth is the log; a snapshot is a cache of it.

A store is plain and synchronous: one call of ``write`` is one transaction, durable when it returns. Each operation of a
stream is a compare-and-set on its record (stream_version and all else): an operation that is out of date answers
``Refusal.STALE`` and changes nothing, while the others of the same call go through. Every log entry carries the chain
digest of the entry before it, so that a missing or altered one is found when the stream is loaded, and never served.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from service.errors import ServiceError

FORMAT_VERSION = 5
"""Layout of what is stored. A store written by a newer one is refused."""
PURGE_ROWS = 2_000
"""Most rows of deleted streams that one transaction clears away."""
TRIM_ROWS = 256
"""Most log entries that one snapshot trims."""

SNAPSHOTS_KEPT = 5
"""Snapshots of a stream within its retention, the latest among them, from which a roll-back starts."""

EntryKind: TypeAlias = Literal["feedback", "labels", "reset", "rollback", "import", "activate"]
"""``labels`` is feedback whose rows were predicted and kept before."""
STATE_KINDS: frozenset[EntryKind] = frozenset({"rollback", "import", "activate"})
"""Entries whose payload is the state that they made (``service.payload``): a replay starts from the last of them."""


class DamagedError(ServiceError):
    """500: something stored is not what was written. It is reported and never served.

    Attributes:
        stream: The damaged stream, or ``None`` where the damage is elsewhere.
        revision: Revision at which the damage shows, where it is known.
        reason: What it is.
    """

    def __init__(self, stream: str | None, revision: int | None, reason: str) -> None:
        where = "the store is" if stream is None else f"stream {stream} is"
        at = "" if revision is None else f" at revision {revision}"
        super().__init__(f"{where} damaged{at}: {reason}; restore it from a backup, or delete it")
        self.stream = stream
        self.revision = revision
        self.reason = reason


class StreamRecord(NamedTuple):
    """A stream without its log.

    Attributes:
        key: Number of this life of the stream, never used again; a stream deleted and created anew has another.
        stream: Its id.
        model: Model that it is bound to.
        model_version: Version of the model.
        config: Its own settings.
        metadata: The client's notes.
        stream_version: Revision of the latest log entry, 0 without one.
        rows_seen: Rows learned over its whole life.
        chain: Chain digest of the latest log entry.
        state: Drift state after the latest entry.
        last_drift: The latest drift event as stored.
        created_at: Epoch seconds.
        updated_at: Epoch seconds of the latest commit.
    """

    key: int
    stream: str
    model: str
    model_version: int
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    stream_version: int
    rows_seen: int
    chain: bytes
    state: str
    last_drift: "StoredEvent | None"
    created_at: float
    updated_at: float


class Entry(NamedTuple):
    """One log entry: a batch of labelled rows with what came of it, a reset, or a state that was put in place.

    Attributes:
        revision: ``stream_version`` that it made.
        kind: What happened.
        at: Epoch seconds.
        first_row: Rows the stream had seen before.
        rows: Rows learned, 0 for a reset; for an import those that the stream had learned elsewhere.
        payload: JSON of the rows and the outcome (``service.payload``).
        previous: Chain digest of the entry before.
        chain: Digest of this entry and ``previous``.
    """

    revision: int
    kind: EntryKind
    at: float
    first_row: int
    rows: int
    payload: bytes
    previous: bytes
    chain: bytes


class Snapshot(NamedTuple):
    """Adapted state at a revision, as the engine wrote it.

    Attributes:
        revision: Revision that it holds.
        chain: Chain digest of that revision's entry.
        status: Numbers that describe the stream then (``window_rows``, ``loss``, ``score``).
        data: The engine's bytes.
    """

    revision: int
    chain: bytes
    status: Mapping[str, Any]
    data: bytes


class StoredEvent(NamedTuple):
    """An event; the fields of ``service.types.Event`` with the time as epoch seconds. ``id`` 0: not committed yet.

    ``feature`` and ``shift`` are those of a warning about inputs.
    """

    id: int
    revision: int
    at: float
    kind: str
    detector: str | None = None
    statistic: float | None = None
    threshold: float | None = None
    change_row: int | None = None
    action: str | None = None
    rows_used: int | None = None
    feature: str | None = None
    shift: float | None = None


class InputWatch(NamedTuple):
    """What was known of a stream's inputs after the latest rows that were kept without labels.

    Attributes:
        revision: The stream's revision then; entries after it have moved it on.
        data: The engine's bytes.
    """

    revision: int
    data: bytes


class Loaded(NamedTuple):
    """What rebuilds a stream, all of it verified: its record, latest snapshot, the entries after that, its inputs."""

    record: StreamRecord
    snapshot: Snapshot | None
    entries: list[Entry]
    watch: InputWatch | None = None


class Pending(NamedTuple):
    """A row that was predicted and waits for its label.

    Attributes:
        id: The client's name for it.
        at: Epoch seconds.
        payload: JSON of the row and of what was answered (``service.pending``).
    """

    id: str
    at: float
    payload: bytes


class UploadPart(NamedTuple):
    """Which rows of a resumable upload a log entry holds.

    Attributes:
        upload: The client's name for the upload.
        start: Number of the first row, counted from 0 over the whole upload.
        stop: One more than that of the last row; rows of other streams may lie between.
    """

    upload: str
    start: int
    stop: int


class Webhook(NamedTuple):
    """Who wants to hear of events.

    Attributes:
        id: Its name.
        url: Where it is called.
        kinds: Kinds of events that it wants.
        secret: What calls are signed with.
        created_at: Epoch seconds.
        cursor: Id of the last event that it has heard of, or that it does not want.
        gone: Whether its owner said that it is there no more.
    """

    id: str
    url: str
    kinds: tuple[str, ...]
    secret: bytes
    created_at: float
    cursor: int = 0
    gone: bool = False


class ModelRecord(NamedTuple):
    """One version of a registered model; ``digest`` is that of its bundle's bytes."""

    name: str
    version: int
    digest: str
    active: bool


class Tally(NamedTuple):
    """How many streams are bound to a version of a model and in one drift state.

    Attributes:
        model: Its name.
        version: Of the model.
        state: ``new``, ``stable``, ``warning`` or ``drifted``.
        streams: Their number.
    """

    model: str
    version: int
    state: str
    streams: int


class Answer(NamedTuple):
    """What was answered to a request with an idempotency key: the digest of its body, and the answer's JSON."""

    digest: bytes
    body: bytes


class Once(NamedTuple):
    """An answer that is kept with the commit it belongs to, and given again to a repeat.

    Attributes:
        key: The client's idempotency key.
        digest: Of the request's body.
        answer: Makes the answer's JSON from what is about to be committed.
        at: Epoch seconds.
        before: Answers kept before this time (epoch seconds) are forgotten.
    """

    key: str
    digest: bytes
    answer: "Callable[[Done], bytes]"
    at: float
    before: float


@dataclass(frozen=True, slots=True)
class Create:
    """Make a stream at revision 0. ``Refusal.STALE`` if it exists."""

    stream: str
    model: str
    model_version: int
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class Append:
    """Add one log entry to a stream: revision +1.

    ``Refusal.KNOWN`` where the stream has learned later rows of ``upload`` than those before ``start``, or where an
    answer is kept already for a repeat of the request.

    Attributes:
        record: The stream as the writer knows it; the compare-and-set is on all of it.
        kind: What happened.
        at: Epoch seconds.
        rows: Rows learned.
        payload: The entry's JSON.
        state: Drift state afterwards.
        ids: Learned ids, each with the row it names; those that were pending are pending no more.
        ids_from: Ids of rows before this one are forgotten.
        events: Events of the entry; their ``id`` is given by the store.
        upload: Where the rows stand in a resumable upload; ``None``: they are of none.
        once: The answer to keep for a repeat of the request.
        model_version: Version of the model that the stream is bound to from here on; ``None``: as before.
    """

    record: StreamRecord
    kind: EntryKind
    at: float
    rows: int
    payload: bytes
    state: str
    ids: Sequence[tuple[str, int]] = ()
    ids_from: int = 0
    events: Sequence[StoredEvent] = ()
    upload: UploadPart | None = None
    once: Once | None = None
    model_version: int | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep the answer to a request that changed nothing else."""

    record: StreamRecord
    once: Once


@dataclass(frozen=True, slots=True)
class PutSnapshot:
    """Add a snapshot to a stream, and trim what no promise needs any more.

    Of the snapshots before, the newest is kept that is older than ``trim_before``, so that every revision since can be
    made again, and a few since then (``SNAPSHOTS_KEPT``).

    ``Refusal.STALE`` where the store has a snapshot that is newer, or the stream is gone.

    Attributes:
        record: The stream as of the snapshot's revision.
        status: Numbers that describe the stream then.
        data: The engine's bytes.
        at: Epoch seconds.
        trim_rows: Entries are trimmed that lie wholly before this row...
        trim_before: ...and before the oldest snapshot that is kept for roll-backs to this time (epoch seconds) or
            later. Uploads that ended before this time are forgotten.
    """

    record: StreamRecord
    status: Mapping[str, Any]
    data: bytes
    at: float = 0.0
    trim_rows: int = 0
    trim_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Configure:
    """Give a stream another config and metadata; the revision stays.

    ``snapshot`` is the stream's state under the new config, so that a replay starts from it; ``None`` where the config
    did not change.
    """

    record: StreamRecord
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    at: float
    snapshot: PutSnapshot | None = None


@dataclass(frozen=True, slots=True)
class Pend:
    """Keep predicted rows until their labels come; the revision stays.

    ``Refusal.KNOWN`` where one of the ids is pending or learned already: then none of the rows is kept.

    Attributes:
        record: The stream as the writer knows it; the compare-and-set is on all of it.
        rows: What to keep.
        before: Rows kept before this time (epoch seconds) are dropped.
        rows_max: Then the oldest are dropped until so many are left.
        inputs: What is known of the stream's inputs afterwards, as the engine wrote it.
        state: Drift state afterwards.
        events: What these inputs showed; their ``id`` is given by the store.
    """

    record: StreamRecord
    rows: Sequence[Pending]
    before: float
    rows_max: int
    inputs: bytes
    state: str
    events: Sequence[StoredEvent] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a stream and everything of it."""

    record: StreamRecord


Operation: TypeAlias = Create | Append | PutSnapshot | Configure | Pend | Remember | Delete


class Done(NamedTuple):
    """An operation that is committed, with the record as it is now and the events with their ids."""

    record: StreamRecord
    events: tuple[StoredEvent, ...] = ()


class Refusal(Enum):
    """Why a compare-and-set changed nothing."""

    STALE = "stale"
    """The stream has moved on: load it again and retry. For ``Create``: it exists."""
    KNOWN = "known"
    """``Pend``: one of the ids is pending or was learned. ``Append``: the upload's rows, or the request's, were."""
    GONE = "gone"
    """The stream was deleted."""


class Reader(Protocol):
    """A store read from outside, as of one moment."""

    def models(self) -> list[ModelRecord]:
        """All versions of all models, by name and version."""
        ...

    def bundle(self, name: str, version: int) -> bytes:
        """The bytes of a registered version. Raises DamagedError."""
        ...

    def streams(self, model: str) -> Iterator[StreamRecord]:
        """Streams of a model, by id."""
        ...

    def entries(self, record: StreamRecord, since: float) -> Iterator[Entry]:
        """Log entries of a stream that were committed at ``since`` (epoch seconds) or later, oldest first, verified."""
        ...

    def close(self) -> None:
        """End reading."""
        ...


class Store(Protocol):
    """Durable state of all streams and models of one tenant.

    Thread-safe. Reads see only what is committed and never wait for a write.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may write it, so that what is in memory may be behind it."""
        ...

    def current(self, records: Sequence[StreamRecord]) -> list[bool]:
        """Which of the records are what the store has."""
        ...

    def lead(self) -> bool:
        """Whether this process, of all that share the store, does what one of them has to do for all.

        It is asked again and again: where the one that did is gone, another is told so.
        """
        ...

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Commit all operations in one transaction; on return they are on disk.

        Returns:
            One answer an operation, in their order.

        Raises:
            StoreFullError: No room; nothing was changed.
            UnavailableError: Any other failure; nothing was changed.
        """
        ...

    def load(self, stream: str) -> Loaded | None:
        """Everything that rebuilds a stream, from one moment, verified.

        Raises:
            DamagedError: An entry, the snapshot or the record is missing or altered.
        """
        ...

    def get(self, stream: str) -> tuple[StreamRecord, Snapshot | None] | None:
        """A stream's record and its snapshot without ``data``."""
        ...

    def page(
        self, prefix: str, model: str | None, limit: int, after: str
    ) -> list[tuple[StreamRecord, Snapshot | None]]:
        """As ``get``, in the order of ids: streams whose id starts with ``prefix`` and is greater than ``after``."""
        ...

    def tally(self) -> list[Tally]:
        """All streams, counted by model, version and state, in that order; takes as long as there are streams."""
        ...

    def entries(self, record: StreamRecord, after: int, limit: int) -> list[Entry]:
        """Log entries with a revision greater than ``after``, oldest first, their chain verified from the first on."""
        ...

    def snapshot(self, record: StreamRecord, revision: int) -> Snapshot | None:
        """The newest snapshot of a stream that is not newer than ``revision``.

        Raises:
            DamagedError: It was altered.
        """
        ...

    def answered(self, record: StreamRecord, key: str, since: float) -> Answer | None:
        """What was answered under an idempotency key since ``since`` (epoch seconds) or later."""
        ...

    def learned(self, wanted: Sequence[tuple[int, Sequence[str]]]) -> list[set[str]]:
        """Which of the ids were learned, for pairs of stream key and ids."""
        ...

    def pending(self, record: StreamRecord, ids: Sequence[str], since: float) -> dict[str, Pending]:
        """Those of the ids that wait for a label since ``since`` (epoch seconds) or later.

        Raises:
            DamagedError: A row is not what was kept.
        """
        ...

    def uploaded(self, upload: str, record: StreamRecord | None) -> int | None:
        """How many rows of an upload a stream has got to, or an upload to many streams; ``None``: it is not known."""
        ...

    def put_uploaded(self, upload: str, rows: int, at: float, before: float) -> None:
        """Keep that all of the first ``rows`` rows of an upload to many streams are learned.

        Args:
            upload: Its name.
            rows: Never less than before.
            at: Epoch seconds.
            before: Uploads that ended before this time (epoch seconds) are forgotten.
        """
        ...

    def events(self, record: StreamRecord, after: int, limit: int) -> list[StoredEvent]:
        """Events with an id greater than ``after``, oldest first."""
        ...

    def all_events(self, after: int, limit: int) -> list[tuple[str, StoredEvent]]:
        """Events of all streams with an id greater than ``after``, oldest first, each with its stream."""
        ...

    def last_event(self) -> int:
        """The id of the latest event; 0 before the first."""
        ...

    def webhooks(self) -> list[Webhook]:
        """All of them, by id."""
        ...

    def put_webhook(self, webhook: Webhook, *, known: bool = False) -> None:
        """Keep one, in place of what was there under its id; if it is ``known``, not where nothing is there."""
        ...

    def delete_webhook(self, name: str) -> bool:
        """Forget one; whether there was one of that id."""
        ...

    def models(self) -> list[ModelRecord]:
        """All versions of all registered models, by name and version."""
        ...

    def put_model(
        self, name: str, bundle: bytes, *, activate: bool | None = None, version: int | None = None
    ) -> ModelRecord:
        """Register a bundle under a name.

        Bytes that the name has already keep their version; new ones get the next, or the one that is stated.

        Args:
            name: Of the model.
            bundle: The bytes.
            activate: Whether it becomes the active version; ``None``: if there is none yet.
            version: Its number, where another store has given it one.
        """
        ...

    def activate_model(self, name: str, version: int) -> bool:
        """Make a version the active one; whether it is there."""
        ...

    def delete_model(self, name: str) -> bool:
        """Remove all versions of a model, unless streams are bound to it; whether that was done."""
        ...

    def behind(self, model: str, version: int, after: str, limit: int) -> list[StreamRecord]:
        """Streams of a model that are bound to another version of it, by id, after one."""
        ...

    def bundle(self, name: str, version: int) -> bytes:
        """The bytes of a registered version.

        Raises:
            DamagedError: They are not what was registered.
        """
        ...

    def purge(self) -> bool:
        """Clear away up to ``PURGE_ROWS`` rows of deleted streams, in a transaction; whether more are left."""
        ...

    def close(self) -> None:
        """Release the data directory. Nothing is lost without it."""
        ...
