"""States of many streams as rows of a few large tensors, and one stream's state as bytes."""

from collections.abc import Collection, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.errors import SnapshotError
from models.types import Tensors

FIRST_CAPACITY = 8
SNAPSHOT_FORMAT = "1"


class Slab:
    """Rows of tensors ``(capacity, …)``, taken and given back; capacity doubles when all are taken. Not thread-safe.

    Attributes:
        initial: What a new stream starts from.
        stream_bytes: Memory of one stream.
    """

    def __init__(self, initial: Tensors) -> None:
        """Take the shape of a state with one stream; it is also what a new stream starts from."""
        self.initial = initial
        self.stream_bytes = sum(value.nbytes for value in initial.values())
        self._tensors = {key: value.expand(FIRST_CAPACITY, *value.shape[1:]).clone() for key, value in initial.items()}
        self._free = list(range(FIRST_CAPACITY - 1, -1, -1))

    def take(self, state: Tensors | None) -> int:
        """A free row, filled with ``state`` or with a new stream's."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
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
        return save_tensors({key: value.contiguous() for key, value in state.items()}, {"snapshot": SNAPSHOT_FORMAT})

    def unpack(self, data: bytes) -> Tensors:
        """The inverse of ``pack``.

        Raises:
            SnapshotError: The bytes are damaged or describe another model's state.
        """
        state = self.unpacked(data)
        shapes = {key: (value.shape, value.dtype) for key, value in self.initial.items()}
        if {key: (value.shape, value.dtype) for key, value in state.items()} != shapes:
            raise SnapshotError("the snapshot's tensors are another model's or another configuration's")
        return state

    def unpacked(self, data: bytes) -> Tensors:
        """The tensors of a snapshot, of whatever model. Raises SnapshotError where the bytes are damaged."""
        try:
            return load_tensors(data)
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise SnapshotError(f"damaged snapshot ({error})") from error

    def _grow(self) -> None:
        capacity = len(next(iter(self._tensors.values())))
        self._tensors = {
            key: torch.cat([value, self.initial[key].expand(capacity, *value.shape[1:])])
            for key, value in self._tensors.items()
        }
        self._free = list(range(2 * capacity - 1, capacity - 1, -1))
