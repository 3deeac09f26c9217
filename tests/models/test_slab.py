"""Slabs: rows come and go, and take up the memory of the streams that are there."""

from pathlib import Path

import pytest
import torch

from models import slab
from models.slab import Slab
from models.types import Tensors

PAGE_BYTES = 4_096


def state(value: float, width: int = 3) -> Tensors:
    """A state with one stream."""
    return {
        "a": torch.full((1, width, 2), value),
        "b": torch.full((1,), int(value), dtype=torch.int64),
        "c": torch.zeros(1, 0),
        "d": torch.tensor([value > 0]),
    }


def same(one: Tensors, other: Tensors) -> bool:
    """Whether two states are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("reserved_bytes", [2**36, 0, 2**62])
def test_rows_are_kept_however_many_there_are(monkeypatch: pytest.MonkeyPatch, reserved_bytes: int) -> None:
    """With addresses taken up ahead, without any, and where so many are not to be had."""
    monkeypatch.setattr(slab, "RESERVED_BYTES", reserved_bytes)
    rows = Slab(state(0.0))
    slots = [rows.take(state(float(number))) for number in range(200)]
    assert len(set(slots)) == 200
    for number, slot in enumerate(slots):
        assert same(rows.read([slot]), state(float(number)))
    assert rows.read(slots[:3], {"b"})["b"].tolist() == [0, 1, 2]


def test_a_row_that_is_given_back_is_used_again() -> None:
    """And begins as a new stream, whatever was in it."""
    rows = Slab(state(0.0))
    first = rows.take(state(7.0))
    rows.give_back(first)
    assert rows.take(None) == first
    assert same(rows.read([first]), state(0.0))


def test_memory_is_taken_by_streams_alone() -> None:
    """A new slab is as good as nothing; each row adds its own size."""
    before = resident_bytes()
    rows = Slab(state(0.0, width=4_096))
    assert resident_bytes() - before < 2**20
    for _ in range(2_000):
        rows.take(state(1.0, width=4_096))
    grown = resident_bytes() - before
    assert 0.9 * 2_000 * rows.stream_bytes < grown < 1.1 * 2_000 * rows.stream_bytes + 2**21


def resident_bytes() -> int:
    """Memory that this process has now (proc(5))."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE_BYTES
