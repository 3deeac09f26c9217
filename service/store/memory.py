"""A store in memory, with every promise but durability; what tests and trials run on."""

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from service.store.base import (
    SNAPSHOTS_KEPT,
    TRIM_ROWS,
    Answer,
    Append,
    Configure,
    Create,
    DamagedError,
    Delete,
    Done,
    Entry,
    InputWatch,
    Loaded,
    ModelRecord,
    Once,
    Operation,
    Pend,
    Pending,
    PutSnapshot,
    Refusal,
    Remember,
    Snapshot,
    StoredEvent,
    StreamRecord,
    Tally,
    Webhook,
)
from service.store.chain import (
    bundle_digest,
    kept_snapshots,
    new_record,
    next_entry,
    next_record,
    pending_digest,
    record_digest,
    snapshot_digest,
    verify_chain,
    verify_loaded,
    verify_pending,
    verify_watch,
    watch_digest,
)


class _Kept(NamedTuple):
    """A snapshot, when it was made, and the checksum it was written with."""

    snapshot: Snapshot
    at: float
    digest: bytes


@dataclass
class _Stream:
    """One stream as kept: values beside the checksums they were written with."""

    record: StreamRecord
    digest: bytes
    entries: list[Entry] = field(default_factory=list)
    snapshots: list[_Kept] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    pending: dict[str, tuple[Pending, bytes]] = field(default_factory=dict)
    watch: tuple[InputWatch, bytes] | None = None
    events: list[StoredEvent] = field(default_factory=list)
    uploads: dict[str, tuple[int, float]] = field(default_factory=dict)
    answers: dict[str, tuple[Answer, float]] = field(default_factory=dict)


@dataclass
class _Model:
    digest: str
    bundle: bytes


class MemoryStore:
    """Dictionaries behind one lock. ``data_dir`` is not used: every entry of STORES is opened the same way."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self.data_dir = data_dir
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._models: dict[str, dict[int, _Model]] = {}
        self._active: dict[str, int] = {}
        self._last_key = 0
        self._last_event = 0
        self._uploads: dict[str, tuple[int, float]] = {}
        self._webhooks: dict[str, Webhook] = {}

    @property
    def shared(self) -> bool:
        """Nobody else can write it."""
        return False

    def current(self, records: Sequence[StreamRecord]) -> list[bool]:
        """Compare records with what is there."""
        with self._lock:
            return [(kept := self._streams.get(each.stream)) is not None and kept.record == each for each in records]

    def lead(self) -> bool:
        """There is nobody else."""
        return True

    def write(self, operations: Sequence[Operation]) -> list[Done | Refusal]:
        """Apply all operations under the lock."""
        with self._lock:
            return [self._apply(operation) for operation in operations]

    def _apply(self, operation: Operation) -> Done | Refusal:
        if isinstance(operation, Create):
            return self._create(operation)
        record = operation.record
        kept = self._streams.get(record.stream)
        if kept is None or kept.record.key != record.key:
            return Refusal.GONE
        if isinstance(operation, PutSnapshot):
            return self._put_snapshot(kept, operation)
        if isinstance(operation, Delete):
            del self._streams[record.stream]
            return Done(kept.record)
        if isinstance(operation, Remember):
            return _remember(kept, operation.once, Done(kept.record))
        if kept.digest != record_digest(record):
            return Refusal.STALE
        if isinstance(operation, Append):
            return self._append(kept, operation)
        if isinstance(operation, Pend):
            return self._pend(kept, operation)
        return self._configure(kept, operation)

    def _create(self, operation: Create) -> Done | Refusal:
        if operation.stream in self._streams:
            return Refusal.STALE
        self._last_key += 1
        record = new_record(self._last_key, operation)
        self._streams[operation.stream] = _Stream(record, record_digest(record))
        return Done(record)

    def _append(self, kept: _Stream, operation: Append) -> Done | Refusal:
        part, once = operation.upload, operation.once
        if once is not None and once.key in kept.answers and kept.answers[once.key][1] >= once.before:
            return Refusal.KNOWN
        if part is not None:
            if kept.uploads.get(part.upload, (0, 0.0))[0] > part.start:
                return Refusal.KNOWN
            kept.uploads[part.upload] = (part.stop, operation.at)
        entry = next_entry(operation)
        events = self._add_events(kept, operation.events)
        kept.entries.append(entry)
        kept.ids = {name: row for name, row in kept.ids.items() if row >= operation.ids_from}
        kept.ids.update(operation.ids)
        for name, _ in operation.ids:
            kept.pending.pop(name, None)
        kept.record = next_record(operation, entry, events)
        kept.digest = record_digest(kept.record)
        done = Done(kept.record, tuple(events))
        return done if operation.once is None else _remember(kept, operation.once, done)

    def _pend(self, kept: _Stream, operation: Pend) -> Done | Refusal:
        pending = {name: held for name, held in kept.pending.items() if held[0].at >= operation.before}
        if any(row.id in pending or row.id in kept.ids for row in operation.rows):
            return Refusal.KNOWN
        pending |= {row.id: (row, pending_digest(kept.record.stream, row)) for row in operation.rows}
        oldest_first = sorted(pending.items(), key=lambda item: item[1][0].at)
        kept.pending = dict(oldest_first[-operation.rows_max :])
        watch = InputWatch(kept.record.stream_version, operation.inputs)
        kept.watch = (watch, watch_digest(kept.record.stream, watch))
        kept.record = kept.record._replace(state=operation.state)
        kept.digest = record_digest(kept.record)
        return Done(kept.record, tuple(self._add_events(kept, operation.events)))

    def _add_events(self, kept: _Stream, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        first = self._last_event + 1
        numbered = [event._replace(id=first + place) for place, event in enumerate(events)]
        self._last_event += len(numbered)
        kept.events.extend(numbered)
        return numbered

    def _put_snapshot(self, kept: _Stream, operation: PutSnapshot) -> Done | Refusal:
        record = operation.record
        if kept.snapshots and kept.snapshots[-1].snapshot.revision > record.stream_version:
            return Refusal.STALE
        snapshot = Snapshot(record.stream_version, record.chain, dict(operation.status), operation.data)
        others = [each for each in kept.snapshots if each.snapshot.revision != snapshot.revision]
        kept.snapshots = [*others, _Kept(snapshot, operation.at, snapshot_digest(kept.record, snapshot))]
        oldest = _thin_snapshots(kept, operation.trim_before)
        trimmed = 0
        for entry in kept.entries[:TRIM_ROWS]:
            past = entry.first_row + entry.rows <= operation.trim_rows and entry.at < operation.trim_before
            if not past or entry.revision > oldest:
                break
            trimmed += 1
        del kept.entries[:trimmed]
        kept.events = [event for event in kept.events if event.at >= operation.trim_before]
        kept.uploads = {name: part for name, part in kept.uploads.items() if part[1] >= operation.trim_before}
        return Done(kept.record)

    def _configure(self, kept: _Stream, operation: Configure) -> Done:
        kept.record = kept.record._replace(
            config=dict(operation.config), metadata=dict(operation.metadata), updated_at=operation.at
        )
        kept.digest = record_digest(kept.record)
        if operation.snapshot is not None:
            self._put_snapshot(kept, operation.snapshot)
        return Done(kept.record)

    def load(self, stream: str) -> Loaded | None:
        """A stream, verified as if it came from a disk."""
        with self._lock:
            kept = self._streams.get(stream)
            if kept is None:
                return None
            record = _verified(kept)
            snapshot = _snapshot(kept, record.stream_version)
            after = 0 if snapshot is None else snapshot.revision
            entries = [entry for entry in kept.entries if entry.revision > after]
            watch = None if kept.watch is None else verify_watch(stream, *kept.watch)
        return verify_loaded(Loaded(record, snapshot, entries, watch))

    def get(self, stream: str) -> tuple[StreamRecord, Snapshot | None] | None:
        """A record and what its snapshot says about it."""
        with self._lock:
            kept = self._streams.get(stream)
            return None if kept is None else (_verified(kept), _headline(kept))

    def page(
        self, prefix: str, model: str | None, limit: int, after: str
    ) -> list[tuple[StreamRecord, Snapshot | None]]:
        """One page of streams."""
        with self._lock:
            names = sorted(name for name in self._streams if name.startswith(prefix))
            found = (self._streams[name] for name in names[bisect_right(names, after) :])
            wanted = [kept for kept in found if model in (None, kept.record.model)]
            return [(_verified(kept), _headline(kept)) for kept in wanted[:limit]]

    def tally(self) -> list[Tally]:
        """All streams, counted."""
        with self._lock:
            records = [kept.record for kept in self._streams.values()]
        counted = Counter((record.model, record.model_version, record.state) for record in records)
        return [Tally(*key, streams) for key, streams in sorted(counted.items())]

    def entries(self, record: StreamRecord, after: int, limit: int) -> list[Entry]:
        """One page of the log."""
        with self._lock:
            kept = self._streams.get(record.stream)
            entries = [] if kept is None or kept.record.key != record.key else list(kept.entries)
        page = [entry for entry in entries if entry.revision > after][:limit]
        if page:
            verify_chain(record.stream, (page[0].revision - 1, page[0].previous), page)
        return page

    def snapshot(self, record: StreamRecord, revision: int) -> Snapshot | None:
        """The newest snapshot up to a revision."""
        with self._lock:
            kept = self._streams.get(record.stream)
            return None if kept is None or kept.record.key != record.key else _snapshot(kept, revision)

    def answered(self, record: StreamRecord, key: str, since: float) -> Answer | None:
        """What was answered under an idempotency key."""
        with self._lock:
            kept = self._streams.get(record.stream)
            answers = {} if kept is None or kept.record.key != record.key else kept.answers
            answer, at = answers.get(key, (None, 0.0))
            return answer if at >= since else None

    def learned(self, wanted: Sequence[tuple[int, Sequence[str]]]) -> list[set[str]]:
        """Ids that were learned."""
        with self._lock:
            by_key = {kept.record.key: kept.ids for kept in self._streams.values()}
            return [{name for name in names if name in by_key.get(key, {})} for key, names in wanted]

    def pending(self, record: StreamRecord, ids: Sequence[str], since: float) -> dict[str, Pending]:
        """Rows that wait for their labels."""
        with self._lock:
            kept = self._streams.get(record.stream)
            rows = {} if kept is None or kept.record.key != record.key else dict(kept.pending)
        found = {name: verify_pending(record.stream, *rows[name]) for name in ids if name in rows}
        return {name: row for name, row in found.items() if row.at >= since}

    def uploaded(self, upload: str, record: StreamRecord | None) -> int | None:
        """How far an upload has got."""
        with self._lock:
            if record is None:
                return self._uploads.get(upload, (None, 0.0))[0]
            kept = self._streams.get(record.stream)
            own = {} if kept is None or kept.record.key != record.key else kept.uploads
            return own.get(upload, (None, 0.0))[0]

    def put_uploaded(self, upload: str, rows: int, at: float, before: float) -> None:
        """Keep how far an upload to many streams has got."""
        with self._lock:
            kept = self._uploads | {upload: (rows, at)}
            self._uploads = {name: part for name, part in kept.items() if part[1] >= before}

    def events(self, record: StreamRecord, after: int, limit: int) -> list[StoredEvent]:
        """One page of events."""
        with self._lock:
            kept = self._streams.get(record.stream)
            events = [] if kept is None or kept.record.key != record.key else list(kept.events)
        return [event for event in events if event.id > after][:limit]

    def all_events(self, after: int, limit: int) -> list[tuple[str, StoredEvent]]:
        """Events of all streams."""
        with self._lock:
            found = [(name, event) for name, kept in self._streams.items() for event in kept.events if event.id > after]
        return sorted(found, key=lambda pair: pair[1].id)[:limit]

    def last_event(self) -> int:
        """The latest event."""
        return self._last_event

    def webhooks(self) -> list[Webhook]:
        """Who wants to hear of events."""
        with self._lock:
            return [self._webhooks[name] for name in sorted(self._webhooks)]

    def put_webhook(self, webhook: Webhook, *, known: bool = False) -> None:
        """Keep one."""
        with self._lock:
            if webhook.id in self._webhooks or not known:
                self._webhooks[webhook.id] = webhook

    def delete_webhook(self, name: str) -> bool:
        """Forget one."""
        with self._lock:
            return self._webhooks.pop(name, None) is not None

    def models(self) -> list[ModelRecord]:
        """All versions of all models."""
        with self._lock:
            return [
                ModelRecord(name, number, versions[number].digest, number == self._active.get(name))
                for name, versions in sorted(self._models.items())
                for number in sorted(versions)
            ]

    def put_model(
        self, name: str, bundle: bytes, *, activate: bool | None = None, version: int | None = None
    ) -> ModelRecord:
        """Register a bundle."""
        digest = bundle_digest(bundle)
        with self._lock:
            versions = self._models.setdefault(name, {})
            number = next((number for number, kept in versions.items() if kept.digest == digest), None)
            if number is None:
                number = 1 + max(versions, default=0) if version is None else version
                versions[number] = _Model(digest, bundle)
            if activate or (activate is None and name not in self._active):
                self._active[name] = number
            return ModelRecord(name, number, digest, self._active.get(name) == number)

    def activate_model(self, name: str, version: int) -> bool:
        """Make a version the active one."""
        with self._lock:
            if version not in self._models.get(name, {}):
                return False
            self._active[name] = version
            return True

    def delete_model(self, name: str) -> bool:
        """Remove a model that no stream is bound to."""
        with self._lock:
            if any(kept.record.model == name for kept in self._streams.values()):
                return False
            self._models.pop(name, None)
            self._active.pop(name, None)
            return True

    def behind(self, model: str, version: int, after: str, limit: int) -> list[StreamRecord]:
        """Streams at another version."""
        with self._lock:
            found = (_verified(self._streams[name]) for name in sorted(self._streams) if name > after)
            return [each for each in found if each.model == model and each.model_version != version][:limit]

    def bundle(self, name: str, version: int) -> bytes:
        """A registered bundle."""
        with self._lock:
            kept = self._models[name][version]
        if bundle_digest(kept.bundle) != kept.digest:
            raise DamagedError(None, None, f"the bundle of model {name}, version {version}, was altered")
        return kept.bundle

    def purge(self) -> bool:
        """Nothing is left: a deleted stream is gone at once."""
        return False

    def close(self) -> None:
        """Nothing to release."""


def _verified(kept: _Stream) -> StreamRecord:
    if record_digest(kept.record) != kept.digest:
        raise DamagedError(kept.record.stream, kept.record.stream_version, "its record was altered")
    return kept.record


def _headline(kept: _Stream) -> Snapshot | None:
    return kept.snapshots[-1].snapshot._replace(data=b"") if kept.snapshots else None


def _snapshot(kept: _Stream, revision: int) -> Snapshot | None:
    found = [each for each in kept.snapshots if each.snapshot.revision <= revision]
    if not found:
        return None
    snapshot, _, digest = found[-1]
    if snapshot_digest(kept.record, snapshot) != digest:
        raise DamagedError(kept.record.stream, snapshot.revision, "its snapshot was altered")
    return snapshot


def _thin_snapshots(kept: _Stream, before: float) -> int:
    """Drop snapshots that no roll-back needs; the oldest that is older than the retention, or 0: no entry may go."""
    found = [(each.snapshot.revision, each.at) for each in kept.snapshots]
    oldest, left = kept_snapshots(found, before, SNAPSHOTS_KEPT)
    kept.snapshots = [each for each in kept.snapshots if each.snapshot.revision in left]
    return oldest


def _remember(kept: _Stream, once: Once, done: Done) -> Done:
    answers = {key: item for key, item in kept.answers.items() if item[1] >= once.before}
    kept.answers = answers | {once.key: (Answer(once.digest, once.answer(done)), once.at)}
    return done
