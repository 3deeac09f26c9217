"""Labels that a stream has named itself, where the set of classes is open: slots are given out as labels come.

A vocabulary is part of a stream's state, so it is bytes of a fixed size: for each slot the kind of label, its length
and its text in UTF-8. ``1``, ``"1"`` and ``true`` are three labels. A slot is never taken back.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError
from models.types import FloatArray, Label

LABEL_BYTES_MAX = 64
"""Longest label, in bytes of UTF-8."""
_HEAD = 2  # kind and length
_STRING, _INTEGER, _BOOLEAN = 1, 2, 3
Names: TypeAlias = tuple[Label, ...]
"""A stream's labels; a label's place is its slot."""


def init_vocabulary(streams: int, ways: int) -> Tensor:
    """(S, N, bytes): no slot has a label."""
    return torch.zeros(streams, ways, _HEAD + LABEL_BYTES_MAX, dtype=torch.uint8)


def names_of(vocabulary: Tensor) -> list[Names]:
    """Each stream's labels, from (S, N, bytes)."""
    width = vocabulary.shape[-1]
    return [_names(row.tobytes(), width) for row in vocabulary.numpy(force=True)]


@lru_cache(maxsize=4096)
def _names(slots: bytes, width: int) -> Names:
    found = []
    for start in range(0, len(slots), width):
        kind, length = slots[start], slots[start + 1]
        if not kind:
            break
        text = slots[start + _HEAD : start + _HEAD + length].decode("utf-8", "surrogatepass")
        found.append(text if kind == _STRING else int(text) if kind == _INTEGER else text == "True")
    return tuple(found)


def written(names: Names, ways: int) -> Tensor:
    """(N, bytes), the inverse of ``names_of`` for one stream."""
    slots = np.zeros((ways, _HEAD + LABEL_BYTES_MAX), dtype=np.uint8)
    for slot, label in zip(slots, names, strict=False):
        kind, text = _coded(label)
        slot[: _HEAD + len(text)] = [kind, len(text), *text]
    return torch.from_numpy(slots)


def assign(names: Names, labels: Sequence[Any], ways: int, rows: Sequence[int] | None = None) -> FloatArray:
    """Slots of labels: those they have, and for new ones the next free slots, in the order of the rows.

    Args:
        names: Labels that have a slot.
        labels: One a row; all of them are checked.
        ways: N, slots that there are.
        rows: Rows that are asked for; all by default. Others take no slot.

    Returns:
        (rows, 1) slots.

    Raises:
        InputError: A label that is none, or one more than there are slots for.
    """
    for row, label in enumerate(labels):
        _check(row, label)
    slots = {(type(label), label): slot for slot, label in enumerate(names)}
    chosen = range(len(labels)) if rows is None else rows
    found = np.empty((len(chosen), 1))
    for place, row in enumerate(chosen):
        label = labels[row]
        if len(slots) >= ways and (type(label), label) not in slots:
            raise InputError(
                ("targets", row),
                f"a new label, but the stream has named {ways} already, as many as its model has ways: send one of "
                "those, or train a model with more --ways",
            )
        found[place] = slots.setdefault((type(label), label), len(slots))
    return found


def extended(names: Names, slots: FloatArray, labels: Sequence[Label]) -> Names:
    """The labels of a stream after rows whose ``slots`` (rows, 1) came from ``assign``."""
    if len(slots) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(slots)} rows: where classes are open, each row brings its own")
    known = list(names)
    for slot, label in zip(slots[:, 0].tolist(), labels, strict=True):
        if slot == len(known):
            known.append(label)
    return tuple(known)


def _check(row: int, label: object) -> None:
    if not isinstance(label, str | int | bool):
        raise InputError(("targets", row), f"a label is a string, an integer or a boolean, got {type(label).__name__}")
    length = len(_coded(label)[1])
    if length > LABEL_BYTES_MAX:
        raise InputError(("targets", row), f"a label has at most {LABEL_BYTES_MAX} bytes, this one has {length}")


def _coded(label: Label) -> tuple[int, bytes]:
    kind = _BOOLEAN if isinstance(label, bool) else _INTEGER if isinstance(label, int) else _STRING
    return kind, str(label).encode("utf-8", "surrogatepass")
