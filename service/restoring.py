"""States from elsewhere, put in place as one log entry: of an earlier revision, of a file, of another model version.

All functions read and compute, and run in a thread; what they return is committed by ``service.history``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from models import Engine, SnapshotError, read_stream, write_stream
from service.configuring import PAGE_ENTRIES, retained
from service.errors import ConflictError, InvalidError
from service.payload import encode_state
from service.registry import Registry
from service.replay import Engines, adapt_again
from service.store import Append, Entry, EntryKind, Loaded, Store, StoredEvent, StreamRecord, verify_chain


def entries_of(store: Store, record: StreamRecord, after: int = 0) -> Iterator[Entry]:
    """A stream's log after a revision, oldest first, read page by page."""
    while page := store.entries(record, after, PAGE_ENTRIES):
        yield from page
        after = page[-1].revision


def revision_before(store: Store, record: StreamRecord, before: float) -> int:
    """The last revision that was committed before a time (epoch seconds).

    Raises:
        InvalidError: The log does not go back so far.
    """
    found, first = 0, 1
    for entry in entries_of(store, record):
        first = first if found else entry.revision
        if entry.at >= before:
            break
        found = entry.revision
    if not found and first > 1:
        raise _gone(("before",), first)
    return found


def rolled_back(
    store: Store, engines: Engines, record: StreamRecord, revision: int, *, retained_rows: int, now: float
) -> Append:
    """The operation that takes a stream back to a revision.

    Where that was made by another version of the model, or under another config, the rows up to it are learned again.

    Raises:
        InvalidError: There is no such revision, or it is no longer kept.
        DamagedError: The log is not what was written.
    """
    if revision > record.stream_version:
        raise InvalidError.at(("revision",), f"the stream is at revision {record.stream_version}")
    lease = engines.lease(record.model, record.model_version, record.config)
    try:
        slot = _state_at(store, lease.engine, record, revision, retained_rows)
        state, name = lease.engine.snapshot(slot), lease.engine.status(slot).state
        lease.engine.release(slot)
    finally:
        engines.give_back(lease)
    return put_state(record, "rollback", {"restored": revision}, state, now=now, state=name)


def _state_at(store: Store, engine: Engine, record: StreamRecord, revision: int, retained_rows: int) -> int:
    """A slot with the state of a revision."""
    snapshot = store.snapshot(record, revision)
    start = (0, b"") if snapshot is None else (snapshot.revision, snapshot.chain)
    entries: list[Entry] = []
    for entry in entries_of(store, record, start[0]):
        if entry.revision > revision:
            break
        entries.append(entry)
    if revision > start[0] and (not entries or entries[0].revision != start[0] + 1):
        raise _gone(("revision",), next(entries_of(store, record)).revision)
    verify_chain(record.stream, start, entries)
    following = next(entries_of(store, record, revision), None)
    rows = record.rows_seen if following is None else following.first_row
    known = [entry for entry in retained(store, record, rows - retained_rows) if entry.revision <= revision]
    return adapt_again(engine, Loaded(record, snapshot, entries), known)


def exported(record: StreamRecord, engine: Engine, state: bytes) -> bytes:
    """A stream as one file."""
    status = {"state": record.state, "rows_seen": record.rows_seen, "stream_version": record.stream_version}
    stated = {
        "stream": record.stream,
        "model": record.model,
        "model_version": record.model_version,
        "model_fingerprint": engine.fingerprint,
        "config": dict(record.config),
        "metadata": dict(record.metadata),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        **status,
    }
    return write_stream(stated, state)


class Imported:
    """A stream out of a file, checked against the models that are served.

    Raises:
        SnapshotError: The bytes are no file of a stream, or damaged.
        ConflictError: Its model is not served in that version.
        InvalidError: What it states of the stream is not what a stream of ours states.
    """

    def __init__(self, data: bytes, registry: Registry) -> None:
        stated, self._state = read_stream(data)
        try:
            self.model, fingerprint = str(stated["model"]), str(stated["model_fingerprint"])
            self.config, self.metadata = dict(stated["config"]), dict(stated["metadata"])
            self._rows, self._name = int(stated["rows_seen"]), str(stated["state"])
            self._stated = {name: stated[name] for name in ("stream", "stream_version", "updated_at")}
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError.at(("body",), "the file does not state all of a stream; export it again") from error
        if self._rows < 0 or self._name not in {"new", "stable", "warning", "drifted"}:
            raise InvalidError.at(("body",), "the file states no state or number of rows that a stream has")
        version = registry.version_like(self.model, fingerprint)
        if version is None:
            raise ConflictError(
                f"The file is of a version of model {self.model} that is not served here: upload that version first."
            )
        self.version = version

    def put(self, engines: Engines, record: StreamRecord, now: float) -> Append:
        """The operation that gives a stream this state.

        Raises:
            InputError: The model does not take the file's config.
            InvalidError: The state is not one of the model.
        """
        lease = engines.lease(self.model, self.version, self.config)
        try:
            lease.engine.release(lease.engine.restore(self._state))
        except SnapshotError as error:
            raise InvalidError.at(("body",), str(error)) from error
        finally:
            engines.give_back(lease)
        return put_state(
            record,
            "import",
            {"imported": self._stated},
            self._state,
            now=now,
            state=self._name,
            rows=self._rows,
            model_version=self.version,
        )


def put_state(
    record: StreamRecord,
    kind: EntryKind,
    stated: Mapping[str, Any],
    data: bytes,
    *,
    now: float,
    state: str,
    rows: int = 0,
    model_version: int | None = None,
) -> Append:
    """The operation that puts a state in place.

    Args:
        record: The stream.
        kind: One of ``STATE_KINDS``.
        stated: What its entry says of it.
        data: The engine's snapshot.
        now: Epoch seconds.
        state: Drift state of that state.
        rows: Rows that it has learned and the stream had not.
        model_version: Version of the model that it is of, where that is another.
    """
    at = max(now, record.updated_at)
    events = [] if kind == "import" else [StoredEvent(0, record.stream_version + 1, at, kind)]
    payload = encode_state({**stated, "outcome": {"state": state}}, data)
    return Append(record, kind, at, rows, payload, state, events=events, model_version=model_version)


def _gone(loc: tuple[str, ...], first: int) -> InvalidError:
    return InvalidError.at(loc, f"no longer kept; the log begins at revision {first}")
