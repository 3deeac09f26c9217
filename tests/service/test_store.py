"""Every store keeps the same promises; what is SQLite's own is in ``test_store_sqlite``."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.store import STORES, Append, Delete, Done, Entry, Loaded, MemoryStore, Operation
from service.store import DamagedError as Damaged
from tests.checks import stores


@pytest.mark.parametrize("check", stores.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", STORES)
def test_store_keeps_every_promise(name: str, check: Callable[[stores.Case], None], tmp_path: Path) -> None:
    """The examination, one promise at a time."""
    case = stores.Case(name, tmp_path / "data")
    try:
        check(case)
    finally:
        case.close()


def test_every_check_runs() -> None:
    """A check that is written is in the list."""
    written = {name for name in vars(stores) if name.startswith("check_")}
    assert {check.__name__ for check in stores.CHECKS} == written
    assert stores.TRAITS.keys() == STORES.keys()


Change = tuple[str, int]
changes = st.lists(
    st.tuples(st.sampled_from(("append", "stale", "pend", "snapshot", "delete")), st.integers(0, 2)), max_size=25
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=changes)
def test_stores_agree_on_any_sequence_of_operations(
    plan: list[Change], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is asked in whatever order, the durable store answers and keeps what the dictionaries do."""
    cases = []
    for name in STORES:
        with suppress(SkipTest):  # where there is no database server the others are compared
            cases.append(stores.Case(name, tmp_path_factory.mktemp("store")))
    seen: list[list[object]] = [[] for _ in cases]
    for case, log in zip(cases, seen, strict=True):
        for step, (change, stream) in enumerate(plan):
            log.append(apply(case, change, f"s{stream}", step))
        log.append([loaded_as_value(case.store.load(f"s{stream}")) for stream in range(3)])
        log.append([pending_of(case, f"s{stream}", len(plan)) for stream in range(3)])
        case.close()
    assert all(log == seen[0] for log in seen)


def apply(case: stores.Case, change: str, stream: str, step: int) -> object:
    """One change of the property test, and what came of it."""
    found = case.store.get(stream)
    if found is None:
        case.create(stream)
        return "created"
    record = found[0]
    if change == "stale":
        record = record._replace(stream_version=record.stream_version + 1)
    operations: dict[str, Operation] = {
        "append": stores.append(record, ids=(f"i{step}",), events=[stores.event(record)]),
        "stale": stores.append(record, ids=(f"i{step}",)),
        "pend": stores.pend(record, f"i{step}", f"i{step + 3}", at=float(step), before=step - 8.0, rows_max=3),
        "snapshot": stores.snapshot(record, trim_rows=record.rows_seen - 4, trim_before=float(step)),
        "delete": Delete(record),
    }
    answer = case.store.write([operations[change]])[0]
    return answer if not isinstance(answer, Done) else (answer.record.stream_version, answer.record.rows_seen)


def pending_of(case: stores.Case, stream: str, steps: int) -> object:
    """What waits for labels."""
    found = case.store.get(stream)
    return found and case.store.pending(found[0], [f"i{step}" for step in range(steps + 3)], 0.0)


def loaded_as_value(loaded: Loaded | None) -> object:
    """What a store loads, without keys, which each store gives as it likes."""
    return None if loaded is None else (loaded.record._replace(key=0), loaded.snapshot, loaded.entries)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), entries=st.integers(1, 6))
def test_any_alteration_of_an_entry_is_detected(data: st.DataObject, entries: int) -> None:
    """Whichever field of whichever entry changes, or if one is left out, swapped or doubled, the stream is refused."""
    case = stores.Case("memory", Path())
    case.grown(entries)
    assert isinstance(case.store, MemoryStore)
    log = case.store._streams["s"].entries
    index = data.draw(st.integers(0, entries - 1))
    entry = log[index]
    altered: list[list[Entry]] = [
        [entry._replace(revision=entry.revision + 1)],
        [entry._replace(kind="reset")],
        [entry._replace(at=entry.at + 0.5)],
        [entry._replace(first_row=entry.first_row + 1)],
        [entry._replace(rows=entry.rows + 1)],
        [entry._replace(payload=entry.payload + b" ")],
        [entry._replace(previous=b"0" * 16)],
        [entry._replace(chain=b"0" * 16)],
        [],
        [entry, entry],
    ]
    log[index : index + 1] = data.draw(st.sampled_from(altered))
    with pytest.raises(Damaged, match="stream s is damaged"):
        case.store.load("s")


def test_an_append_names_rows_by_their_index_in_the_stream(tmp_path: Path) -> None:
    """Entries say where their rows start, so that a change row can be found in the log."""
    case = stores.Case("memory", tmp_path)
    record = case.grown(3)
    operation: Append = stores.append(record)
    assert isinstance(case.store.write([operation])[0], Done)
    assert case.store.entries(record, 3, 1)[0].first_row == 6
