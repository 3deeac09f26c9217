"""Bring streams back: a snapshot, and the log entries after it in lockstep over many streams."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from models import Engine, Feedback, SnapshotError, StreamConfig
from service.errors import InvalidError, NotFoundError, ServiceError
from service.payload import decode_feedback, decode_state
from service.registry import Registry
from service.store import STATE_KINDS, DamagedError, Entry, InputWatch, Loaded, Snapshot, Store

Key = tuple[str, int, StreamConfig]


class Lease(NamedTuple):
    """The use of an engine by a stream, to be given back."""

    engine: Engine
    key: Key


class Engines:
    """One engine for each model version and configuration that some hot stream uses. Thread-safe."""

    def __init__(self, registry: Registry, device: str) -> None:
        self._registry = registry
        self._device = device
        self._lock = threading.Lock()
        self._engines: dict[Key, tuple[Lease, int]] = {}

    def lease(self, model: str, version: int, config: Mapping[str, Any]) -> Lease:
        """Use an engine; it is made if nobody uses it yet.

        Raises:
            InputError: The model does not take the configuration.
        """
        key = (model, version, stream_config(config))
        with self._lock:
            if key not in self._engines:
                made = Engine(self._registry.model(model, version), key[2], device=self._device)
                self._engines[key] = (Lease(made, key), 0)
            lease, users = self._engines[key]
            self._engines[key] = (lease, users + 1)
        return lease

    def give_back(self, lease: Lease) -> None:
        """End a use; an engine without any is forgotten, with its tensors."""
        with self._lock:
            kept, users = self._engines[lease.key]
            if users > 1:
                self._engines[lease.key] = (kept, users - 1)
            else:
                del self._engines[lease.key]


def stream_config(config: Mapping[str, Any]) -> StreamConfig:
    """A stream's configuration from its fields.

    Raises:
        InvalidError: A field that no model has.
    """
    for name in config:
        if name not in StreamConfig.__dataclass_fields__:
            raise InvalidError.at(
                ("config", name), f"unknown; there are {', '.join(StreamConfig.__dataclass_fields__)}"
            )
    return StreamConfig(**config)


def bring_back(store: Store, engines: Engines, streams: Sequence[str]) -> list[tuple[Loaded, Lease, int] | Exception]:
    """Read streams and rebuild their states, those of an engine together: each with its slot, or its error."""
    found: dict[str, tuple[Loaded, Lease, int] | Exception] = {}
    groups: dict[Key, list[tuple[Loaded, Lease]]] = {}
    for stream in streams:
        try:
            loaded = store.load(stream)
            if loaded is None:
                found[stream] = NotFoundError(f"There is no stream {stream}: create it with PUT first.")
                continue
            record = loaded.record
            lease = engines.lease(record.model, record.model_version, record.config)
        except Exception as error:  # noqa: BLE001 - it belongs to this stream
            found[stream] = error
            continue
        groups.setdefault(lease.key, []).append((loaded, lease))
    for group in groups.values():
        slots = rebuild(group[0][1].engine, [loaded for loaded, _ in group])
        for (loaded, lease), slot in zip(group, slots, strict=True):
            if isinstance(slot, int):
                found[loaded.record.stream] = (loaded, lease, slot)
            else:
                engines.give_back(lease)
                found[loaded.record.stream] = slot
    return [found[stream] for stream in streams]


def rebuild(engine: Engine, streams: Sequence[Loaded]) -> list[int | ServiceError]:
    """Slots with the state that each stream's snapshot and entries describe, or the error of that stream."""
    slots: list[int] = []
    streams = [_since_state(loaded) for loaded in streams]
    try:
        for loaded in streams:
            slots.append(_start(engine, loaded))  # noqa: PERF401 - those made before a failure are released below
        replay(engine, [(slot, loaded.entries, loaded.watch) for slot, loaded in zip(slots, streams, strict=True)])
    except Exception:  # noqa: BLE001 - one by one, so that a stream's trouble stays its own
        for slot in slots:
            engine.release(slot)
        return [_rebuild_one(engine, loaded) for loaded in streams]
    return list(slots)


def adapt_again(engine: Engine, loaded: Loaded, retained: Sequence[Entry]) -> int:
    """A slot with a stream's state under an engine of another configuration, or of another version of its model.

    The state is taken over as it is where both keep the same things; otherwise the stream starts at the
    meta-initialization and learns the retained rows again, with the alarms that its log tells. What it has named itself
    it keeps.

    Args:
        engine: The other one.
        loaded: The stream.
        retained: Entries of its rows as far back as they are to count, oldest first.
    """
    try:
        return _rebuilt(engine, loaded)
    except SnapshotError:
        started = _since_state(loaded)
        slot = engine.create(started.snapshot.data if started.snapshot else None)
    replay(engine, [(slot, [entry for entry in undone(retained) if entry.kind not in STATE_KINDS], loaded.watch)])
    return slot


def undone(entries: Sequence[Entry]) -> list[Entry]:
    """Entries without those that a later roll-back has undone, or that an import has replaced.

    A roll-back goes on from what the stream was at its revision, also where that had itself been rolled back since.

    Example:
        >>> from service.payload import encode_state
        >>> rows = [Entry(at, "feedback", 0.0, 0, 1, b"", b"", b"") for at in (1, 2, 3)]
        >>> back = Entry(4, "rollback", 0.0, 3, 0, encode_state({"restored": 1}, b""), b"", b"")
        >>> forth = Entry(5, "rollback", 0.0, 3, 0, encode_state({"restored": 3}, b""), b"", b"")
        >>> [entry.revision for entry in undone([*rows, back])]
        [1, 4]
        >>> [entry.revision for entry in undone([*rows, back, forth])]
        [1, 2, 3, 5]
    """
    left: list[Entry] = []
    last = entries[-1].revision if entries else 0
    for entry in reversed(entries):
        if entry.revision > last:
            continue
        left.append(entry)
        if entry.kind == "import":
            break
        if entry.kind == "rollback":
            last = decode_state(entry.payload)[0]["restored"]
    return left[::-1]


def _since_state(loaded: Loaded) -> Loaded:
    """The same stream, told from the last entry that put a state in place, if one did after the snapshot."""
    places = [place for place, entry in enumerate(loaded.entries) if entry.kind in STATE_KINDS]
    if not places:
        return loaded
    entry = loaded.entries[places[-1]]
    snapshot = Snapshot(entry.revision, entry.chain, {}, decode_state(entry.payload)[1])
    return loaded._replace(snapshot=snapshot, entries=loaded.entries[places[-1] + 1 :])


def _rebuilt(engine: Engine, loaded: Loaded) -> int:
    """A slot with the state that snapshot and entries describe. Raises SnapshotError and whatever a replay does."""
    loaded = _since_state(loaded)
    slot = _start(engine, loaded)
    try:
        replay(engine, [(slot, loaded.entries, loaded.watch)])
    except BaseException:
        engine.release(slot)
        raise
    return slot


def _start(engine: Engine, loaded: Loaded) -> int:
    slot = engine.create() if loaded.snapshot is None else engine.restore(loaded.snapshot.data)
    if loaded.watch is not None and loaded.watch.revision == (loaded.snapshot.revision if loaded.snapshot else 0):
        engine.restore_inputs(slot, loaded.watch.data)
    return slot


def _rebuild_one(engine: Engine, loaded: Loaded) -> int | ServiceError:
    record = loaded.record
    try:
        return _rebuilt(engine, loaded)
    except SnapshotError as error:
        return DamagedError(record.stream, record.stream_version, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the log does not lead to a state
        return DamagedError(record.stream, None, f"its log cannot be learned again ({error})")


def replay(engine: Engine, streams: Sequence[tuple[int, Sequence[Entry], InputWatch | None]]) -> None:
    """Learn log entries again, with what was told with their predictions and the alarms, as the log has it.

    Args:
        engine: Where the slots are.
        streams: Slot, entries and inputs of each stream; the n-th entries of all of them are learned together.
    """
    longest = max((len(entries) for _, entries, _ in streams), default=0)
    for position in range(longest):
        now = [(slot, entries[position]) for slot, entries, _ in streams if position < len(entries)]
        batches = [_feedback(engine, slot, entry) for slot, entry in now if entry.kind != "reset"]
        if batches:
            engine.apply(engine.step(batches))
        resets = [slot for slot, entry in now if entry.kind == "reset"]
        if resets:
            engine.apply(engine.reset_tick(resets))
        for slot, entries, watch in streams:
            if watch is not None and position < len(entries) and entries[position].revision == watch.revision:
                engine.restore_inputs(slot, watch.data)


def _feedback(engine: Engine, slot: int, entry: Entry) -> Feedback:
    rows, asked, decision, watched = decode_feedback(entry.payload)
    inputs, targets = engine.encode_inputs(rows.inputs), engine.encode_targets(rows.targets, slot)
    return Feedback(slot, inputs, targets, asked, decision, watched, rows.targets)
