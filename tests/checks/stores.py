"""One examination for all stores; it runs over every entry of the table STORES."""

import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import SkipTest

import psycopg
import pytest

from service.store import (
    STORES,
    Answer,
    Append,
    Configure,
    Create,
    DamagedError,
    Delete,
    Done,
    InputWatch,
    MemoryStore,
    Once,
    Operation,
    Pend,
    Pending,
    PutSnapshot,
    Refusal,
    Remember,
    Store,
    StoredEvent,
    StreamRecord,
    UploadPart,
    Webhook,
)
from service.store.base import SNAPSHOTS_KEPT
from tests.checks import postgres

Damage = Literal[
    "entry altered", "entry missing", "last entry missing", "snapshot altered", "record altered", "bundle", "pending",
    "watch",
]  # fmt: skip

DAMAGE_SQL: Mapping[Damage, str] = {
    "entry altered": "UPDATE entries SET payload=CAST('{\"altered\":1}' AS BLOB) WHERE revision=4",
    "entry missing": "DELETE FROM entries WHERE revision=4",
    "last entry missing": "DELETE FROM entries WHERE revision=5",
    "snapshot altered": "UPDATE snapshots SET data=CAST('altered' AS BLOB)",
    "record altered": "UPDATE streams SET stream_version=stream_version-1",
    "pending": "UPDATE pending SET payload=CAST('altered' AS BLOB) WHERE id='p'",
    "watch": "UPDATE watches SET data=CAST('altered' AS BLOB)",
    "bundle": "UPDATE models SET bundle=CAST('altered' AS BLOB)",
}


def damage_memory(store: Store, damage: Damage, _data_dir: Path) -> Store:
    """Alter what a memory store holds behind its back."""
    assert isinstance(store, MemoryStore)
    kept = store._streams["s"]
    if damage == "entry altered":
        kept.entries[3] = kept.entries[3]._replace(payload=b"altered")
    elif damage == "entry missing":
        del kept.entries[3]
    elif damage == "last entry missing":
        del kept.entries[4]
    elif damage == "snapshot altered":
        (stored,) = kept.snapshots
        kept.snapshots = [stored._replace(snapshot=stored.snapshot._replace(data=b"altered"))]
    elif damage == "record altered":
        kept.record = kept.record._replace(stream_version=kept.record.stream_version - 1)
    elif damage == "pending":
        row, digest = kept.pending["p"]
        kept.pending["p"] = (row._replace(payload=b"altered"), digest)
    elif damage == "watch":
        assert kept.watch is not None
        kept.watch = (kept.watch[0]._replace(data=b"altered"), kept.watch[1])
    else:
        store._models["m"][1].bundle = b"altered"
    return store


def damage_sqlite(store: Store, damage: Damage, data_dir: Path) -> Store:
    """Alter the file of a closed store, and open it again."""
    store.close()
    with sqlite3.connect(data_dir / "streams.sqlite3") as connection:
        assert connection.execute(DAMAGE_SQL[damage]).rowcount == 1
    connection.close()
    return STORES["sqlite"](data_dir)


def damage_postgres(store: Store, damage: Damage, place: Any) -> Store:
    """Alter a row of a database behind the back of a store that is in use."""
    statement = DAMAGE_SQL[damage].replace("CAST('", "convert_to('").replace("' AS BLOB)", "', 'UTF8')")
    with psycopg.connect(place.url, options=f"-c search_path={place.schema}") as connection:
        assert connection.execute(statement.encode()).rowcount == 1
    return store


@dataclass(frozen=True)
class Traits:
    """What the checks need to know about a store beside its interface.

    Attributes:
        durable: Whether it can be opened again.
        damage: Alters one thing in it and returns it, opened again if need be.
        place: Where it is, given a directory that may be used.
        remove: Called with that at the end.
    """

    durable: bool
    damage: Callable[[Store, Damage, Any], Store]
    place: Callable[[Path], Any] = lambda directory: directory
    remove: Callable[[Any], None] = lambda _place: None


TRAITS: Mapping[str, Traits] = {
    "memory": Traits(durable=False, damage=damage_memory),
    "sqlite": Traits(durable=True, damage=damage_sqlite),
    "postgres": Traits(
        durable=True,
        damage=damage_postgres,
        place=lambda _directory: postgres.database(),
        remove=postgres.give_back,
    ),
}


class Case:
    """A store under examination in a directory or a schema of its own."""

    def __init__(self, name: str, data_dir: Path) -> None:
        self.traits = TRAITS[name]
        self._open = STORES[name]
        self.place = self.traits.place(data_dir)
        self.store = self._open(self.place)

    def close(self) -> None:
        """Close the store, and leave nothing behind."""
        self.store.close()
        self.traits.remove(self.place)

    def reopen(self) -> None:
        """Close and open again; checks of stores that are not durable are skipped here."""
        if not self.traits.durable:
            raise SkipTest("reopen: this store ends with its process")
        self.store.close()
        self.store = self._open(self.place)

    def damage(self, damage: Damage) -> None:
        """Alter one thing."""
        self.store = self.traits.damage(self.store, damage, self.place)

    def create(self, stream: str = "s", model: str = "m", at: float = 1.0) -> StreamRecord:
        """A new stream."""
        return done(self.store, Create(stream, model, 1, {"steps": 3}, {"note": "ö"}, at)).record

    def grown(self, revisions: int, stream: str = "s") -> StreamRecord:
        """A stream with that many entries of two rows each, ids ``0``, ``1`` and so on."""
        record = self.create(stream)
        for number in range(revisions):
            record = done(self.store, append(record, ids=(str(2 * number), str(2 * number + 1)))).record
        return record


def done(store: Store, operation: Operation) -> Done:
    """The answer to one operation that must go through."""
    answer = store.write([operation])[0]
    assert isinstance(answer, Done), answer
    return answer


def append(record: StreamRecord, *, ids: tuple[str, ...] = ("a", "b"), **changes: Any) -> Append:
    """Two rows of feedback."""
    number = record.stream_version + 1
    given: dict[str, Any] = {
        "kind": "feedback",
        "at": float(number),
        "rows": 2,
        "payload": f'{{"revision":{number}}}'.encode(),
        "state": "stable",
        "ids": [(name, record.rows_seen + row) for row, name in enumerate(ids)],
    }
    return Append(record, **(given | changes))


def pend(record: StreamRecord, *ids: str, at: float = 1.0, **changes: Any) -> Pend:
    """Rows that wait for their labels from ``at`` on."""
    given: dict[str, Any] = {"before": 0.0, "rows_max": 10, "inputs": b"inputs\x00", "state": record.state}
    return Pend(record, [Pending(name, at, f"row {name}\x00".encode()) for name in ids], **(given | changes))


def event(record: StreamRecord, kind: str = "drift") -> StoredEvent:
    """An event of a stream's next revision."""
    return StoredEvent(0, record.stream_version + 1, 2.5, kind, "llr_cusum", 9.5, 8.0, 3, "readapt", 4)


def snapshot(record: StreamRecord, data: bytes = b"state", **trim: float) -> PutSnapshot:
    """A snapshot of a stream as it is."""
    status = {"window_rows": 2, "loss": 0.5, "score": 0.25, "state": "stable"}
    return PutSnapshot(
        record,
        status,
        data,
        at=trim.get("at", record.updated_at),
        trim_rows=int(trim.get("trim_rows", 0)),
        trim_before=trim.get("trim_before", 0.0),
    )


def check_an_unknown_stream_is_none(case: Case) -> None:
    """What was never created is not there, and is not made by asking."""
    assert case.store.load("s") is None
    assert case.store.get("s") is None
    assert case.store.page("", None, 10, "") == []


def check_a_new_stream_is_at_revision_zero(case: Case) -> None:
    """Creation gives revision 0, no rows, and keeps model, config and metadata as they were given."""
    record = case.create()
    assert (record.stream_version, record.rows_seen, record.model, record.model_version) == (0, 0, "m", 1)
    assert (record.config, record.metadata, record.state) == ({"steps": 3}, {"note": "ö"}, "new")
    loaded = case.store.load("s")
    assert loaded == (record, None, [], None)
    assert case.store.get("s") == (record, None)


def check_creating_twice_is_refused(case: Case) -> None:
    """The second of two creations changes nothing, in one transaction too."""
    record = case.create()
    again = Create("s", "other", 1, {}, {}, 2.0)
    twice = Create("t", "m", 1, {}, {}, 2.0)
    answers = case.store.write([again, twice, twice])
    assert answers[0] is Refusal.STALE
    assert isinstance(answers[1], Done)
    assert answers[2] is Refusal.STALE
    assert case.store.get("s") == (record, None)


def check_entries_come_back_in_order(case: Case) -> None:
    """Each append is one revision; rows, payloads and times come back as they were, oldest first."""
    record = case.grown(5)
    assert (record.stream_version, record.rows_seen, record.updated_at) == (5, 10, 5.0)
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.record == record
    assert [entry.revision for entry in loaded.entries] == [1, 2, 3, 4, 5]
    assert [entry.first_row for entry in loaded.entries] == [0, 2, 4, 6, 8]
    assert [entry.payload for entry in loaded.entries] == [f'{{"revision":{n}}}'.encode() for n in range(1, 6)]
    assert case.store.entries(record, 2, 2) == loaded.entries[2:4]


def check_a_stale_writer_is_refused(case: Case) -> None:
    """Of two writers that start from one revision the second changes nothing: no row, no id, no event."""
    old = case.grown(2)
    new = done(case.store, append(old, ids=("x",), rows=1)).record
    stale = append(old, ids=("y",), events=[event(old)])
    assert case.store.write([stale]) == [Refusal.STALE]
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.record == new
    assert case.store.learned([(new.key, ["x", "y"])]) == [{"x"}]
    assert case.store.events(new, 0, 10) == []


def check_a_refusal_leaves_the_others_of_its_transaction_alone(case: Case) -> None:
    """Streams are committed together and refused one by one."""
    fresh, other = case.grown(1), case.grown(1, "t")
    stale = other._replace(stream_version=0, chain=b"")
    answers = case.store.write([append(stale), append(fresh), snapshot(fresh), append(other)])
    assert answers[0] is Refusal.STALE
    assert [isinstance(answer, Done) for answer in answers[1:]] == [True, True, True]


def check_a_failing_transaction_changes_nothing(case: Case) -> None:
    """All or nothing: where one operation cannot even be tried, those before it are undone."""
    if not case.traits.durable:
        raise SkipTest("failing transaction: a dictionary does not fail in the middle")
    record = case.grown(1)
    broken = append(record, payload=object())
    good = case.create("t")
    with pytest.raises(TypeError, match="buffer"):
        case.store.write([append(good), broken])
    loaded = case.store.load("t")
    assert loaded is not None
    assert loaded.record == good
    assert isinstance(case.store.write([append(good)])[0], Done)


def check_revisions_are_never_used_again(case: Case) -> None:
    """A stream deleted and created anew is another one: a writer that knew the old one is refused."""
    old = case.grown(1)
    done(case.store, Delete(old))
    new = case.create()
    assert new.key != old.key
    assert case.store.write([append(old), snapshot(old), Delete(old)]) == [Refusal.GONE] * 3
    done(case.store, append(new))
    while case.store.purge():
        pass
    assert case.store.learned([(old.key, ["0", "1"]), (new.key, ["a", "0"])]) == [set(), {"a"}]


def check_a_deleted_stream_is_gone(case: Case) -> None:
    """Record, rows, ids, events and snapshot are gone; others stay."""
    record, other = case.grown(3), case.grown(1, "t")
    record = done(case.store, append(record, ids=("e",), events=[event(record)])).record
    done(case.store, snapshot(record))
    done(case.store, Delete(record))
    while case.store.purge():
        pass
    assert case.store.load("s") is None
    assert case.store.entries(record, 0, 10) == []
    assert case.store.events(record, 0, 10) == []
    assert case.store.learned([(record.key, ["e"]), (other.key, ["0"])]) == [set(), {"0"}]
    assert [found.stream for found, _ in case.store.page("", None, 10, "")] == ["t"]


def check_ids_are_known_as_long_as_their_rows(case: Case) -> None:
    """Ids of rows before ``ids_from`` are forgotten in the same commit, and may be learned again."""
    record = case.grown(3)
    assert case.store.learned([(record.key, ["0", "5", "6"])]) == [{"0", "5"}]
    record = done(case.store, append(record, ids=("6", "0"), ids_from=4)).record
    assert case.store.learned([(record.key, ["0", "1", "3", "4", "5", "6"])]) == [{"0", "4", "5", "6"}]


def check_ids_belong_to_a_stream(case: Case) -> None:
    """The same id in two streams is two ids."""
    first, second = case.grown(1), case.create("t")
    assert case.store.learned([(second.key, ["0"]), (first.key, ["0"])]) == [set(), {"0"}]


def check_a_pending_row_waits_until_it_is_learned(case: Case) -> None:
    """It comes back as it was, whatever the stream learns meanwhile, and leaves with the commit that learns its id."""
    record = case.create()
    done(case.store, pend(record, "p", "q", at=2.5))
    grown = done(case.store, append(record, ids=("other",), rows=1)).record
    found = case.store.pending(grown, ["p", "q", "?"], 0.0)
    assert found == {name: Pending(name, 2.5, f"row {name}\x00".encode()) for name in ("p", "q")}
    stale = append(record, ids=("p",))
    assert case.store.write([stale]) == [Refusal.STALE]
    assert set(case.store.pending(grown, ["p", "q"], 0.0)) == {"p", "q"}
    grown = done(case.store, append(grown, ids=("p",), rows=1)).record
    assert set(case.store.pending(grown, ["p", "q"], 0.0)) == {"q"}
    assert case.store.learned([(grown.key, ["p", "q"])]) == [{"p"}]


def check_pending_rows_leave_the_revision_alone(case: Case) -> None:
    """Where its inputs show nothing a row kept changes nothing: a writer who knows the stream still may append."""
    record = case.grown(2)
    assert case.store.write([pend(record._replace(stream_version=0), "p")]) == [Refusal.STALE]
    assert done(case.store, pend(record, "p")) == (record, ())
    assert case.store.get("s") == (record, None)
    done(case.store, append(record))


def check_what_inputs_show_is_kept_with_them(case: Case) -> None:
    """What is known of them comes back with the stream, the latest at its revision; an event has its place among all,
    and a new drift state makes writers reload.
    """
    old = case.grown(2)
    moved = StoredEvent(0, 2, 2.5, "warning", "inputs", 9.5, 8.0, feature="heat", shift=-1.25)
    warned = done(case.store, pend(old, "p", inputs=b"first", state="warning", events=[moved]))
    assert warned.record == old._replace(state="warning")
    assert case.store.get("s") == (warned.record, None)
    assert case.store.write([append(old), pend(old, "q")]) == [Refusal.STALE] * 2
    assert case.store.events(old, 0, 10) == list(warned.events) == [moved._replace(id=warned.events[0].id)]
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.watch == InputWatch(2, b"first")
    grown = done(case.store, append(warned.record, events=[event(old)])).record
    assert case.store.events(grown, warned.events[0].id, 10)[0].kind == "drift"
    done(case.store, pend(grown, "r", inputs=b"second"))
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.record == grown
    assert loaded.watch == InputWatch(3, b"second")
    case.damage("watch")
    with pytest.raises(DamagedError, match="its inputs was altered"):
        case.store.load("s")


def check_a_known_id_is_kept_no_second_time(case: Case) -> None:
    """A pending or learned id refuses all rows of its operation, and what is kept stays; in one transaction too."""
    record = case.grown(1)
    done(case.store, pend(record, "p", at=1.0))
    answers = case.store.write([pend(record, "new", "p", at=2.0), pend(record, "0", at=2.0), pend(record, "q", at=2.0)])
    assert answers[:2] == [Refusal.KNOWN] * 2
    assert isinstance(answers[2], Done)
    found = case.store.pending(record, ["new", "p", "0", "q"], 0.0)
    assert {name: row.at for name, row in found.items()} == {"p": 1.0, "q": 2.0}


def check_pending_rows_expire(case: Case) -> None:
    """What has waited too long is not found any more, is dropped by the next, and its id is free again."""
    record = case.create()
    done(case.store, pend(record, "p", "q", at=1.0))
    assert case.store.pending(record, ["p"], 1.5) == {}
    assert set(case.store.pending(record, ["p", "q"], 1.0)) == {"p", "q"}
    done(case.store, pend(record, "p", at=3.0, before=1.5))
    assert {name: row.at for name, row in case.store.pending(record, ["p", "q"], 0.0).items()} == {"p": 3.0}


def check_the_oldest_pending_rows_make_room(case: Case) -> None:
    """A stream keeps ``rows_max`` of them, those that came last; other streams are not concerned."""
    record, other = case.create(), case.create("t")
    done(case.store, pend(other, "a", at=0.5, rows_max=2))
    done(case.store, pend(record, "a", "b", at=1.0, rows_max=3))
    done(case.store, pend(record, "c", "d", at=2.0, rows_max=3))
    assert set(case.store.pending(record, ["a", "b", "c", "d"], 0.0)) == {"b", "c", "d"}
    assert set(case.store.pending(other, ["a"], 0.0)) == {"a"}


def check_pending_rows_go_with_their_stream(case: Case) -> None:
    """A deleted stream's are gone, and its later namesake has none; for its writers it is gone."""
    old = case.create()
    done(case.store, pend(old, "p"))
    done(case.store, Delete(old))
    new = case.create()
    while case.store.purge():
        pass
    assert case.store.pending(old, ["p"], 0.0) == {}
    assert case.store.pending(new, ["p"], 0.0) == {}
    assert case.store.write([pend(old, "q")]) == [Refusal.GONE]
    done(case.store, pend(new, "p"))


def check_a_damaged_pending_row_is_reported(case: Case) -> None:
    """An altered row is not learned from; the others of its stream are."""
    record = case.create()
    done(case.store, pend(record, "p", "q"))
    case.damage("pending")
    with pytest.raises(DamagedError, match="stream s is damaged"):
        case.store.pending(record, ["p"], 0.0)
    assert set(case.store.pending(record, ["q"], 0.0)) == {"q"}


def check_a_request_is_answered_once(case: Case) -> None:
    """Where an answer is kept already nothing is learned, whoever knows the stream as it is; too old, it is none."""

    def once(at: float, before: float) -> Once:
        return Once("k", b"digest", lambda answer: str(answer.record.stream_version).encode(), at, before)

    record = done(case.store, append(case.create(), once=once(5.0, 0.0))).record
    assert case.store.write([append(record, ids=(), once=once(6.0, 5.0))]) == [Refusal.KNOWN]
    assert case.store.get("s") == (record, None)
    done(case.store, append(record, ids=(), once=once(9.0, 5.5)))
    assert case.store.answered(record, "k", 0.0) == Answer(b"digest", b"2")


def check_records_are_compared_with_what_is_kept(case: Case) -> None:
    """One that is behind, of another life of its stream, or of none, is not what the store has."""
    old = case.create()
    new = done(case.store, append(old)).record
    other = case.grown(1, "t")
    assert case.store.current([new, old, other]) == [True, False, True]
    done(case.store, Delete(other))
    assert case.store.current([other, case.create("t")]) == [False, True]
    assert case.store.current([]) == []


def check_somebody_leads(case: Case) -> None:
    """Who is alone on a store does what one has to do, and goes on doing it."""
    assert case.store.lead()
    assert case.store.lead()
    case.reopen()
    assert case.store.lead()


def check_an_upload_is_learned_once(case: Case) -> None:
    """How far it has got is committed with its rows; rows that were learned are refused, and change nothing."""
    record = case.create()
    assert case.store.uploaded("u", record) is None
    record = done(case.store, append(record, upload=UploadPart("u", 0, 2))).record
    assert case.store.uploaded("u", record) == 2
    assert case.store.write([append(record, ids=(), upload=UploadPart("u", 1, 3))]) == [Refusal.KNOWN]
    assert case.store.get("s") == (record, None)
    record = done(case.store, append(record, ids=(), upload=UploadPart("u", 5, 7))).record
    record = done(case.store, append(record, ids=(), upload=UploadPart("v", 0, 2))).record
    other = case.create("other")
    assert [case.store.uploaded(name, record) for name in ("u", "v", "w")] == [7, 2, None]
    assert case.store.uploaded("u", other) is None
    done(case.store, Delete(record))
    assert case.store.uploaded("u", case.create()) is None
    while case.store.purge():
        pass
    assert case.store.uploaded("u", record) is None


def check_uploads_are_forgotten_with_old_entries(case: Case) -> None:
    """Those that ended before the time that the log is kept for."""
    record = case.create()
    record = done(case.store, append(record, at=1.0, upload=UploadPart("old", 0, 2))).record
    record = done(case.store, append(record, ids=(), at=5.0, upload=UploadPart("new", 0, 2))).record
    done(case.store, snapshot(record, trim_before=3.0))
    assert (case.store.uploaded("old", record), case.store.uploaded("new", record)) == (None, 2)


def check_an_upload_to_many_streams_is_kept(case: Case) -> None:
    """Beside what each stream knows of it, and after reopening; old ones are forgotten."""
    record = case.create()
    case.store.put_uploaded("u", 100, 1.0, 0.0)
    case.store.put_uploaded("u", 200, 2.0, 0.0)
    assert (case.store.uploaded("u", None), case.store.uploaded("u", record)) == (200, None)
    case.store.put_uploaded("v", 300, 9.0, 5.0)
    assert (case.store.uploaded("u", None), case.store.uploaded("v", None)) == (None, 300)
    case.reopen()
    assert case.store.uploaded("v", None) == 300


def check_events_are_numbered_upwards(case: Case) -> None:
    """Events are committed with their entry, get growing ids, and come back oldest first, page by page."""
    record = case.create()
    ids = []
    for kind in ("warning", "drift", "reset"):
        answer = done(case.store, append(record, ids=(), events=[event(record, kind)]))
        record = answer.record
        ids.append(answer.events[0].id)
    assert ids == sorted(set(ids))
    assert ids[0] > 0
    found = case.store.events(record, 0, 10)
    assert [(each.id, each.revision, each.kind) for each in found] == [
        (ids[0], 1, "warning"),
        (ids[1], 2, "drift"),
        (ids[2], 3, "reset"),
    ]
    assert found[1] == event(record)._replace(id=ids[1], revision=2)
    assert case.store.events(record, ids[0], 1) == [found[1]]
    assert record.last_drift == found[1]


def check_a_snapshot_shortens_what_is_loaded(case: Case) -> None:
    """After a snapshot only later entries are loaded, and bytes and status come back as they were."""
    record = case.grown(3)
    put = snapshot(record, b"\x00state\xff")
    done(case.store, put)
    record = done(case.store, append(record, ids=("z",))).record
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.snapshot is not None
    assert (loaded.snapshot.revision, loaded.snapshot.data) == (3, b"\x00state\xff")
    assert loaded.snapshot.status == put.status
    assert [entry.revision for entry in loaded.entries] == [4]
    headline = case.store.get("s")
    assert headline == (record, loaded.snapshot._replace(data=b""))


def check_an_older_snapshot_is_refused(case: Case) -> None:
    """Snapshots never go back; one of the past is welcome as long as there is no newer one."""
    old = case.grown(2)
    new = done(case.store, append(old, ids=("z",))).record
    done(case.store, snapshot(old))
    done(case.store, snapshot(new))
    assert case.store.write([snapshot(old)]) == [Refusal.STALE]


def check_trimming_needs_a_snapshot_age_and_rows(case: Case) -> None:
    """An entry is trimmed only when a snapshot as old covers it, enough rows came after it, and it is old enough."""
    record = case.grown(3)
    done(case.store, snapshot(record))
    for _ in range(3):
        record = done(case.store, append(record, ids=())).record
    for rows, before, left in (
        (100, 2.5, [1, 2, 3, 4, 5, 6]),  # no snapshot is as old
        (4, 3.5, [3, 4, 5, 6]),  # too few rows came after
        (100, 3.5, [4, 5, 6]),
        (10, 100.0, [6]),
    ):
        done(case.store, snapshot(record, trim_rows=rows, trim_before=before))
        assert [entry.revision for entry in case.store.entries(record, 0, 10)] == left
    record = done(case.store, append(record)).record
    loaded = case.store.load("s")
    assert loaded is not None
    assert [entry.revision for entry in loaded.entries] == [7]


def check_older_snapshots_stay_for_as_long_as_roll_backs_reach(case: Case) -> None:
    """The newest that is older than the retention, the latest, and a few between, finer where they are young."""
    record = case.create()
    for number in range(1, 11):
        record = done(case.store, append(record, ids=())).record
        done(case.store, snapshot(record, f"state {number}".encode(), trim_before=2.5))
    kept = [found.revision for r in range(1, 11) if (found := case.store.snapshot(record, r)) is not None]
    assert len(set(kept)) == SNAPSHOTS_KEPT
    assert kept[0] == 2
    assert kept[-2:] == [9, 10]
    assert case.store.snapshot(record, 1) is None
    newest = case.store.snapshot(record, 99)
    assert newest is not None
    assert newest.data == b"state 10"


def check_an_answer_is_kept_with_its_commit(case: Case) -> None:
    """It says what was committed, is found until it is too old, and another replaces it then."""

    def once(at: float, before: float = 0.0, key: str = "k") -> Once:
        return Once(key, b"digest", lambda answer: f"{answer.record.stream_version}".encode(), at, before)

    record = done(case.store, append(case.create(), once=once(5.0))).record
    assert case.store.answered(record, "k", 5.0) == Answer(b"digest", b"1")
    assert case.store.answered(record, "k", 5.1) is None
    assert case.store.answered(record, "other", 0.0) is None
    assert case.store.write([append(record._replace(rows_seen=9), once=once(6.0))]) == [Refusal.STALE]
    assert case.store.answered(record, "k", 5.0) == Answer(b"digest", b"1")
    assert done(case.store, Remember(record, once(7.0, before=6.0, key="l"))).record == record
    assert case.store.answered(record, "k", 0.0) is None
    assert case.store.answered(record, "l", 0.0) == Answer(b"digest", b"1")
    done(case.store, Delete(record))
    assert case.store.write([Remember(record, once(8.0))]) == [Refusal.GONE]
    assert case.store.answered(case.create(), "l", 0.0) is None


def check_a_stream_takes_another_version_of_its_model(case: Case) -> None:
    """With the entry that says so, and only with it."""
    record = done(case.store, append(case.create())).record
    moved = done(case.store, append(record, kind="activate", rows=0, ids=(), model_version=2)).record
    assert (moved.model_version, moved.stream_version, moved.rows_seen) == (2, 2, 2)
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.record == moved
    assert case.store.write([append(record)]) == [Refusal.STALE]


def check_settings_change_without_a_revision(case: Case) -> None:
    """New settings keep the revision, come with the state under them, and make writers reload."""
    old = case.grown(2)
    put = snapshot(old, b"under the new config")
    new = done(case.store, Configure(old, {"steps": 5}, {"n": [1, None]}, 9.0, put)).record
    assert (new.stream_version, new.config, new.metadata) == (2, {"steps": 5}, {"n": [1, None]})
    loaded = case.store.load("s")
    assert loaded is not None
    assert loaded.record == new
    assert loaded.snapshot is not None
    assert loaded.snapshot.data == b"under the new config"
    assert case.store.write([append(old)]) == [Refusal.STALE]


def check_pages_follow_each_other(case: Case) -> None:
    """Streams are listed by id, by prefix and model, each once."""
    names = ["a", "a.1", "a:2", "b", "b-1", "c"]
    for number, name in enumerate(names):
        case.create(name, model="even" if number % 2 == 0 else "odd")

    def page(prefix: str, model: str | None, limit: int, after: str) -> list[str]:
        return [record.stream for record, _ in case.store.page(prefix, model, limit, after)]

    assert page("", None, 4, "") == sorted(names)[:4]
    assert page("", None, 4, sorted(names)[3]) == sorted(names)[4:]
    assert page("a", None, 10, "") == ["a", "a.1", "a:2"]
    assert page("a", None, 10, "a.1") == ["a:2"]
    assert page("b", None, 10, "a") == ["b", "b-1"]
    assert page("", "odd", 10, "") == ["a.1", "b", "c"]


def check_streams_are_counted_by_model_and_state(case: Case) -> None:
    """Each stream once, where it stands now; a deleted one no more."""
    assert case.store.tally() == []
    for number, model in enumerate(["n", "m", "m", "m"]):
        case.create(f"s{number}", model)
    done(case.store, append(case.create("t"), state="drifted"))
    gone = case.create("u")
    done(case.store, Delete(gone))
    assert case.store.tally() == [("m", 1, "drifted", 1), ("m", 1, "new", 3), ("n", 1, "new", 1)]


def check_a_bundle_keeps_its_version(case: Case) -> None:
    """The same bytes keep their number, changed ones get the next, which is active only if asked for."""
    first = case.store.put_model("m", b"one")
    again = case.store.put_model("m", b"one", activate=False)
    second = case.store.put_model("m", b"two", activate=False)
    assert (first.version, first.active) == (1, True)
    assert again == first
    assert (second.version, second.active) == (2, False)
    assert case.store.put_model("m", b"two", activate=True).active
    assert [(each.version, each.active) for each in case.store.models()] == [(1, False), (2, True)]
    assert case.store.put_model("other", b"two", activate=False, version=4).version == 4
    assert case.store.put_model("other", b"three", activate=False).version == 5
    assert not any(each.active for each in case.store.models() if each.name == "other")
    assert not case.store.activate_model("other", 6)
    assert case.store.activate_model("other", 4)
    assert case.store.put_model("other", b"two", activate=False) == case.store.models()[2]
    assert (case.store.bundle("m", 1), case.store.bundle("m", 2)) == (b"one", b"two")


def check_streams_behind_a_version_are_found(case: Case) -> None:
    """Those of the model that are at an older or a newer one, page by page."""
    for name in ("a", "b", "c", "d"):
        record = case.create(name, model="other" if name == "d" else "m")
        if name == "b":
            done(case.store, append(record, kind="activate", rows=0, ids=(), model_version=3))
    assert [each.stream for each in case.store.behind("m", 2, "", 2)] == ["a", "b"]
    assert [each.stream for each in case.store.behind("m", 2, "b", 2)] == ["c"]
    assert [each.stream for each in case.store.behind("m", 1, "", 9)] == ["b"]
    assert case.store.behind("none", 1, "", 9) == []


def check_a_model_in_use_stays(case: Case) -> None:
    """It is removed with all versions once no stream is bound to it."""
    case.store.put_model("m", b"one")
    case.store.put_model("m", b"two")
    record = case.create()
    assert not case.store.delete_model("m")
    assert len(case.store.models()) == 2
    done(case.store, Delete(record))
    assert case.store.delete_model("m")
    assert case.store.models() == []


def check_events_of_all_streams_are_told_in_order(case: Case) -> None:
    """Whichever stream they are of; those of a deleted stream are told no more."""
    assert case.store.last_event() == 0
    for name in ("a", "b", "a2"):
        record = case.create(name)
        done(case.store, append(record, ids=(), events=[event(record), event(record, "warning")]))
    found = case.store.all_events(0, 10)
    assert [(name, each.kind) for name, each in found] == [
        (name, kind) for name in ("a", "b", "a2") for kind in ("drift", "warning")
    ]
    assert case.store.last_event() == found[-1][1].id
    assert case.store.all_events(found[1][1].id, 2) == found[2:4]
    kept = case.store.get("b")
    assert kept is not None
    done(case.store, Delete(kept[0]))
    assert {name for name, _ in case.store.all_events(0, 10)} == {"a", "a2"}


def check_webhooks_are_kept_changed_and_forgotten(case: Case) -> None:
    """By their id."""
    one, two = (Webhook(name, f"https://{name}", ("drift", "reset"), b"s\x00", 1.5) for name in ("one", "two"))
    case.store.put_webhook(two)
    case.store.put_webhook(one)
    case.store.put_webhook(two._replace(cursor=7, gone=True))
    assert case.store.webhooks() == [one, two._replace(cursor=7, gone=True)]
    case.store.put_webhook(one._replace(cursor=3), known=True)
    case.store.put_webhook(one._replace(id="gone"), known=True)
    assert case.store.webhooks()[:-1] == [one._replace(cursor=3)]
    assert case.store.delete_webhook("one")
    assert not case.store.delete_webhook("one")
    assert [each.id for each in case.store.webhooks()] == ["two"]


def check_everything_is_there_after_reopening(case: Case) -> None:
    """Whatever was answered is on the disk."""
    record = case.grown(3)
    done(case.store, snapshot(record))
    record = done(case.store, pend(record, "p", "q", state="warning")).record
    record = done(case.store, append(record, ids=("z", "q"), events=[event(record)])).record
    model = case.store.put_model("m", b"bundle")
    before = (case.store.load("s"), case.store.events(record, 0, 10))
    case.reopen()
    assert (case.store.load("s"), case.store.events(record, 0, 10)) == before
    assert case.store.learned([(record.key, ["0", "z", "?"])]) == [{"0", "z"}]
    assert set(case.store.pending(record, ["p", "q"], 0.0)) == {"p"}
    assert case.store.models() == [model]
    done(case.store, append(record))


def check_event_ids_survive_deletion_and_reopening(case: Case) -> None:
    """An event id is never used again, so that a client may resume after any that it has seen."""
    record = case.create()
    last = done(case.store, append(record, events=[event(record)])).events[0].id
    done(case.store, Delete(record))
    while case.store.purge():
        pass
    case.reopen()
    record = case.create()
    assert done(case.store, append(record, events=[event(record)])).events[0].id > last


def check_damage_is_reported_and_never_served(case: Case) -> None:
    """An altered or missing piece makes loading fail with the stream and the revision, and leaves others alone."""
    for damage, revision in (
        ("entry altered", 4),
        ("entry missing", 4),
        ("last entry missing", 5),
        ("snapshot altered", 2),
    ):
        record = case.grown(2)
        done(case.store, snapshot(record))
        for number in (3, 4, 5):
            record = done(case.store, append(record, ids=(f"n{number}",))).record
        case.damage(damage)  # type: ignore[arg-type]  # literals of the table above
        with pytest.raises(DamagedError, match="stream s is damaged") as caught:
            case.store.load("s")
        assert (caught.value.stream, caught.value.revision) == ("s", revision), damage
        case.create("t")
        assert case.store.load("t") is not None
        for name in ("s", "t"):
            found = case.store.get(name)
            assert found is not None
            done(case.store, Delete(found[0]))
        while case.store.purge():
            pass


def check_a_damaged_record_is_reported(case: Case) -> None:
    """A record that was altered is not listed as if it were right."""
    case.grown(2)
    case.damage("record altered")
    for read in (lambda: case.store.load("s"), lambda: case.store.get("s"), lambda: case.store.page("", None, 9, "")):
        with pytest.raises(DamagedError, match="stream s is damaged"):
            read()


def check_a_damaged_bundle_is_reported(case: Case) -> None:
    """A bundle that was altered is not served."""
    case.create()
    case.store.put_model("m", b"bundle", activate=False)
    case.damage("bundle")
    with pytest.raises(DamagedError, match="model m, version 1"):
        case.store.bundle("m", 1)


def check_of_many_writers_one_wins(case: Case) -> None:
    """Threads that write from the same revision at the same time: one commit each round, in one unbroken chain."""
    record = case.create()
    for number in range(5):
        answers = write_at_once(case.store, [append(record, ids=(f"{number}.{writer}",)) for writer in range(4)])
        won = [answer for answer in answers if isinstance(answer, Done)]
        assert len(won) == 1
        record = won[0].record
    loaded = case.store.load("s")
    assert loaded is not None
    assert [entry.revision for entry in loaded.entries] == [1, 2, 3, 4, 5]


def write_at_once(store: Store, operations: list[Append]) -> list[Done | Refusal]:
    """The answers to operations that as many threads write at the same time."""
    with ThreadPoolExecutor(len(operations)) as pool:
        return [answer for answers in pool.map(lambda each: store.write([each]), operations) for answer in answers]


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_an_unknown_stream_is_none,
    check_a_new_stream_is_at_revision_zero,
    check_creating_twice_is_refused,
    check_entries_come_back_in_order,
    check_a_stale_writer_is_refused,
    check_a_refusal_leaves_the_others_of_its_transaction_alone,
    check_a_failing_transaction_changes_nothing,
    check_revisions_are_never_used_again,
    check_a_deleted_stream_is_gone,
    check_ids_are_known_as_long_as_their_rows,
    check_ids_belong_to_a_stream,
    check_a_pending_row_waits_until_it_is_learned,
    check_pending_rows_leave_the_revision_alone,
    check_what_inputs_show_is_kept_with_them,
    check_a_known_id_is_kept_no_second_time,
    check_pending_rows_expire,
    check_the_oldest_pending_rows_make_room,
    check_pending_rows_go_with_their_stream,
    check_a_damaged_pending_row_is_reported,
    check_a_request_is_answered_once,
    check_records_are_compared_with_what_is_kept,
    check_somebody_leads,
    check_an_upload_is_learned_once,
    check_uploads_are_forgotten_with_old_entries,
    check_an_upload_to_many_streams_is_kept,
    check_events_are_numbered_upwards,
    check_a_snapshot_shortens_what_is_loaded,
    check_an_older_snapshot_is_refused,
    check_trimming_needs_a_snapshot_age_and_rows,
    check_older_snapshots_stay_for_as_long_as_roll_backs_reach,
    check_an_answer_is_kept_with_its_commit,
    check_a_stream_takes_another_version_of_its_model,
    check_settings_change_without_a_revision,
    check_pages_follow_each_other,
    check_streams_are_counted_by_model_and_state,
    check_a_bundle_keeps_its_version,
    check_streams_behind_a_version_are_found,
    check_a_model_in_use_stays,
    check_events_of_all_streams_are_told_in_order,
    check_webhooks_are_kept_changed_and_forgotten,
    check_everything_is_there_after_reopening,
    check_event_ids_survive_deletion_and_reopening,
    check_damage_is_reported_and_never_served,
    check_a_damaged_record_is_reported,
    check_a_damaged_bundle_is_reported,
    check_of_many_writers_one_wins,
)
