"""A stream's inputs watched: which rows of a batch count, and what is told when they are found to have moved."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.errors import SnapshotError
from models.types import ModelSpec, Tensors
from models.virtual_drift import BASELINE_ROWS, watch, watched_columns

KEYS = ("inputs", "inputs_warned")
"""What of a stream's state is moved here: statistics of its inputs, and rows until a warning ends."""


class InputShift(NamedTuple):
    """A stream's inputs have moved.

    Attributes:
        feature: The one that moved most clearly.
        shift: By how many of its standard deviations in this stream, as far as is known yet.
        statistic: Its CUSUM.
        threshold: Where that warns.
    """

    feature: str
    shift: float
    statistic: float
    threshold: float


def watch_inputs(
    spec: ModelSpec, state: Tensors, z: Tensor, mask: npt.NDArray[np.bool_]
) -> tuple[Tensors, list[InputShift | None]]:
    """Look at rows, whether or not they have labels.

    Args:
        spec: The model.
        state: With the tensors of ``KEYS``.
        z: (S, B, D + …) bundle-standardised features, then whatever else; NaN is missing.
        mask: (S, B) which rows are there and have not been watched before.

    Returns:
        The new tensors of ``KEYS``, and what was found of each stream.
    """
    columns = watched_columns(spec.features)
    x = z[..., columns].double().numpy(force=True)
    x, there = _first(x, mask)
    track, moved = watch(state["inputs"].double().numpy(force=True), x, there)
    left = (state["inputs_warned"] - torch.from_numpy(there.sum(1)).to(state["inputs_warned"].device)).clamp_min(0)
    new = {"inputs": torch.from_numpy(track).to(state["inputs"]), "inputs_warned": left}
    alarm = moved.alarm & (left == 0).numpy(force=True)  # while a stream is warned, more of the same is no news
    if not alarm.any():
        return new, [None] * len(there)
    new["inputs_warned"] = torch.where(torch.from_numpy(alarm).to(left.device), BASELINE_ROWS, left)
    names = [spec.features[column].name for column in columns]
    each = zip(*(column.tolist() for column in moved._replace(alarm=alarm)), strict=True)
    return new, [InputShift(names[which], *found) if alarmed else None for alarmed, which, *found in each]


def pack_inputs(state: Tensors) -> list[bytes]:
    """Each stream's tensors of ``KEYS`` as bytes, one after the other."""
    columns = [[row.tobytes() for row in state[key].numpy(force=True)] for key in KEYS]
    return [b"".join(parts) for parts in zip(*columns, strict=True)]


def unpack_inputs(like: Tensors, data: bytes) -> Tensors:
    """The inverse of ``pack_inputs``, of one stream.

    Raises:
        SnapshotError: The bytes are of another number of features than the state ``like``.
    """
    inputs, warned = (like[key].numpy(force=True) for key in KEYS)
    if len(data) != inputs.nbytes + warned.nbytes:
        raise SnapshotError(f"{len(data)} bytes tell of other inputs: {inputs.nbytes + warned.nbytes} are expected")
    parts = (data[: inputs.nbytes], inputs), (data[inputs.nbytes :], warned)
    found = [np.frombuffer(part, old.dtype).reshape(old.shape).copy() for part, old in parts]
    return {key: torch.from_numpy(part).to(like[key].device) for key, part in zip(KEYS, found, strict=True)}


def fresh_rows(mask: npt.NDArray[np.bool_], watched: Sequence[npt.NDArray[np.bool_] | None]) -> npt.NDArray[np.bool_]:
    """(S, B) the mask without the rows that were watched when they were predicted."""
    fresh = mask.copy()
    for position, given in enumerate(watched):
        if given is not None:
            fresh[position, : len(given)] &= ~given
    return fresh


def _first(
    x: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The same rows with the padding at the end."""
    if (mask[:, :-1] >= mask[:, 1:]).all():
        return x, mask
    order = (~mask).argsort(axis=1, kind="stable")
    return np.take_along_axis(x, order[..., None], axis=1), np.take_along_axis(mask, order, axis=1)
