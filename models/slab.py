"""States of many streams as rows of a few large tensors, and one stream's state as bytes."""

import json
import mmap
import sys
from collections.abc import Collection, Sequence
from math import prod

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models import reverting
from models.errors import SnapshotError
from models.types import Tensors

RESERVED_BYTES = 2**36
"""Addresses that a slab takes up: memory only where streams are."""
FIRST_CAPACITY, GROWTH = 64, 1.25
"""On other devices, and beyond those addresses."""
_MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""Pages that nobody writes count for nothing. Python's ``mmap`` names it from 3.12 on."""
SNAPSHOT_FORMAT = "1"
LATER = frozenset({reverting.KEY})
"""Tensors that earlier versions did not keep: of their streams nothing is known there yet."""


class Slab:
    """Rows of tensors ``(capacity, …)``, taken and given back. Not thread-safe.

    On a processor the tensors are addresses that become memory when a row is first written: they take up what their
    streams do, and never have to move.

    Attributes:
        initial: What a new stream starts from.
        stream_bytes: Memory of one stream.
    """

    def __init__(self, initial: Tensors, owner: str = "") -> None:
        """Take the shape of a state with one stream; it is also what a new stream starts from.

        ``owner`` tells whose states these are: snapshots of another owner are refused.
        """
        self.initial = initial
        self._owner = owner
        self.stream_bytes = sum(value.nbytes for value in initial.values())
        self._capacity = self._used = 0
        self._tensors = {key: value[:0] for key, value in initial.items()}
        self._free: list[int] = []
        on_processor = all(value.device.type == "cpu" for value in initial.values())
        self._extend(max(RESERVED_BYTES // self.stream_bytes, 1) if on_processor else FIRST_CAPACITY)

    def take(self, state: Tensors | None) -> int:
        """A free row, filled with ``state`` or with a new stream's."""
        if self._free:
            slot = self._free.pop()
        else:
            if self._used == self._capacity:
                self._extend(int(self._capacity * GROWTH) + 1)
            slot, self._used = self._used, self._used + 1
        self.write([slot], self.initial if state is None else state, [0])
        return slot

    def give_back(self, slot: int) -> None:
        """Make a row free again."""
        self._free.append(slot)

    def read(self, slots: Sequence[int], keys: Collection[str] | None = None) -> Tensors:
        """Copies of rows, in the order asked for; leading axis ``len(slots)``. All tensors, or those of ``keys``."""
        index = torch.tensor(slots, dtype=torch.int64)
        return {key: self._tensors[key].index_select(0, index) for key in keys or self._tensors}

    def write(self, slots: Sequence[int], states: Tensors, rows: Sequence[int]) -> None:
        """Replace rows of the slab by rows of a batch of states, or of some of their tensors."""
        to, of = torch.tensor(slots, dtype=torch.int64), torch.tensor(rows, dtype=torch.int64)
        whole = len(rows) == len(next(iter(states.values()))) and list(rows) == list(range(len(rows)))
        for key, value in states.items():
            self._tensors[key].index_copy_(0, to, value if whole else value.index_select(0, of))

    def pack(self, state: Tensors) -> bytes:
        """A state with one stream as safetensors bytes."""
        stated = f"{SNAPSHOT_FORMAT} {self._owner}"  # one entry: safetensors puts several in any order
        return save_tensors({key: value.contiguous() for key, value in state.items()}, {"snapshot": stated})

    def unpack(self, data: bytes) -> Tensors:
        """The inverse of ``pack``.

        Raises:
            SnapshotError: The bytes are damaged or describe another model's state.
        """
        state = self.unpacked(data)
        for key in LATER & self.initial.keys() - state.keys():
            state[key] = self.initial[key]
        shapes = {key: (value.shape, value.dtype) for key, value in self.initial.items()}
        if (
            _owner_of(data) not in {"", self._owner}
            or {key: (value.shape, value.dtype) for key, value in state.items()} != shapes
        ):
            raise SnapshotError("the snapshot's tensors are another model's or another configuration's")
        return state

    def unpacked(self, data: bytes) -> Tensors:
        """The tensors of a snapshot, of whatever model. Raises SnapshotError where the bytes are damaged."""
        try:
            return load_tensors(data)
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise SnapshotError(f"damaged snapshot ({error})") from error

    def _extend(self, capacity: int) -> None:
        """Rows up to ``capacity``, or as many as there are addresses for."""
        while (made := _rows_like(self.initial, capacity)) is None:
            if capacity <= self._used + 1:
                raise MemoryError("no addresses are left for further streams")
            capacity = max(capacity // 2, self._used + 1)
        for key, rows in made.items():
            rows[: self._used] = self._tensors[key][: self._used]
        self._tensors, self._capacity = made, capacity


def _owner_of(data: bytes) -> str:
    """Whose snapshot these readable safetensors bytes are; the first ones did not say."""
    length = int.from_bytes(data[:8], "little")
    stated: str = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("snapshot", "")
    return stated.partition(" ")[2]


def _rows_like(initial: Tensors, capacity: int) -> Tensors | None:
    """Tensors (capacity, …) like those of a state; None where so many addresses are not to be had."""
    made: Tensors = {}
    for key, value in initial.items():
        shape = (capacity, *value.shape[1:])
        size = prod(shape) * value.element_size()
        if not size or value.device.type != "cpu":
            made[key] = torch.empty(shape, dtype=value.dtype, device=value.device)
            continue
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except (OSError, ValueError, OverflowError):
            return None
        made[key] = torch.frombuffer(memory, dtype=value.dtype).view(shape)
    return made
