"""Items of unequal length as arrays: which go together, what is padding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.types import FloatArray


def by_size(rows: Sequence[int], kinds: Sequence[bool] | None = None) -> list[list[int]]:
    """Indices of items of like length (powers of two) and kind, so that padding at most doubles the work."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, count in enumerate(rows):
        kind = kinds[index] if kinds else True
        groups.setdefault((max(count - 1, 0).bit_length(), kind), []).append(index)
    return list(groups.values())


def mask_of(blocks: Sequence[FloatArray]) -> npt.NDArray[np.bool_]:
    """(S, B) which rows are no padding."""
    counts = np.array([len(rows) for rows in blocks])
    return np.asarray(np.arange(int(counts.max())) < counts[:, None])


def padded(blocks: Sequence[FloatArray], longest: int) -> FloatArray:
    """(S, B, width), zero where a stream has fewer rows."""
    if all(len(block) == longest for block in blocks):
        return np.stack(blocks)
    padded = np.zeros((len(blocks), longest, blocks[0].shape[1]))
    for position, block in enumerate(blocks):
        padded[position, : len(block)] = block
    return padded
