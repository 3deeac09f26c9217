"""The power goes, a call fails, the disk is full: what was acknowledged is there, and nothing is half there.

``BLOCKS_EVERY=1`` (``make damage``) lets each single call fail; otherwise some of them do.
"""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from service.store import SqliteStore, check_store
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.power_case import cuts, traced
from tests.service.streams_case import PROBE, batches

EVERY = int(os.environ.get("BLOCKS_EVERY", "0"))
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="what a process does to its files is recorded by strace: install it"
)


def learned(directory: Path) -> list[int]:
    """Numbers of the entries that are there, in their order; the log is verified."""
    store = SqliteStore(directory)
    try:
        found = store.get("s")
        return [] if found is None else [int(entry.payload) for entry in store.entries(found[0], 0, 1_000)]
    finally:
        store.close()


@needs_strace
def test_a_power_cut_at_any_sync_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """Whether what was not synced is lost, half there or there; what is there is a beginning of what was written."""
    run = traced(tmp_path / "data", tmp_path / "log")
    assert run.code == 0, run.failure
    assert run.said == [f"acknowledged {number}" for number in range(12)]
    seen = set()
    for cut in cuts(tmp_path / "data", run.lines):
        copy = tmp_path / "copy"
        copy.mkdir()
        for name, data in cut.files.items():
            if not name.endswith("-shm"):
                (copy / name).write_bytes(data)
        found = learned(copy)
        assert found[: len(cut.acknowledged)] == cut.acknowledged
        assert found == list(range(len(found)))
        assert check_store(copy).damages == []
        seen.add(len(found))
        shutil.rmtree(copy)
    assert seen == set(range(13))


@needs_strace
@pytest.mark.parametrize(
    ("calls", "error", "every"),
    [
        ("fsync,fdatasync", "EIO", 4),
        ("pwrite64", "EIO", 37),
        ("pwrite64", "ENOSPC", 41),
        ("ftruncate", "EIO", 2),
        ("rename", "EIO", 1),
    ],
)
def test_a_call_that_fails_is_answered_and_leaves_nothing_half_there(
    tmp_path: Path, calls: str, error: str, every: int
) -> None:
    """Whichever call it is: the commit is refused with 503 or 507 if it is concerned, and the next one goes through."""
    whole = traced(tmp_path / "whole", tmp_path / "log")
    total = sum(line.startswith(tuple(f"{call}(" for call in calls.split(","))) for line in whole.lines)
    assert total > 0
    for number in range(1, total + 1, EVERY or every):
        directory = tmp_path / f"{number}"
        run = traced(directory, tmp_path / "log", "-e", f"inject={calls}:error={error}:when={number}")
        assert run.code == 0, (number, run.failure[-600:])
        acknowledged = [int(line.split()[1]) for line in run.said if line.startswith("acknowledged")]
        refused = [line.split()[2] for line in run.said if line.startswith("refused")]
        assert len(refused) <= 1
        assert set(refused) <= {"503", "507"}
        if "not opened" not in run.said:
            assert len(acknowledged) >= 11
        found = learned(directory)
        assert [entry for entry in found if entry in acknowledged] == acknowledged
        assert found == sorted(set(found))
        assert check_store(directory).damages == []
        shutil.rmtree(directory)


@run_async
async def test_a_full_disk_stops_learning_alone(tmp_path: Path) -> None:
    """Feedback says 507 and changes nothing, predictions go on; when there is room, so does learning."""
    store = SqliteStore(tmp_path)
    async with serving(store=store) as (client, _):  # type: ignore[arg-type]  # any store will do
        await client.put("/v1/streams/s", json={"model": "reg"})
        (inputs, targets), *more = batches(40, rows=8)
        body = {"inputs": inputs, "targets": targets}
        assert (await client.post("/v1/streams/s/feedback", json=body)).status_code == 200
        await asyncio.to_thread(store._writer.execute, "PRAGMA max_page_count=1")
        taken = 1
        for inputs, targets in more:
            answer = await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
            if answer.status_code != 200:
                break
            taken += 1
        assert "free some space" in assert_problem(answer, 507)["detail"]
        predicted = (await client.post("/v1/streams/s/predict", json={"inputs": PROBE})).json()
        assert predicted["stream_version"] == taken
        assert (await client.get("/readyz")).status_code == 200
        await asyncio.to_thread(store._writer.execute, "PRAGMA max_page_count=1000000")
        again = await client.post("/v1/streams/s/feedback", json={"inputs": inputs, "targets": targets})
        assert again.json()["stream_version"] == taken + 1
