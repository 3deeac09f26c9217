"""A table's labels where classes are open: each stream names its own, so which class is which carries no information.

A stream's labels take slots in the order in which they come, as a server gives them out. In meta-training the slots are
shuffled anew in every task, which is few-shot practice: what is learned is how to tell classes apart, not which ones.
"""

import numpy as np
import torch
from torch import Tensor

from models.errors import DataError
from models.targets import encode_targets
from models.tasks.table import IntArray, Table
from models.types import FloatArray, ModelSpec


def table_targets(spec: ModelSpec, table: Table) -> FloatArray:
    """A table's labels as a model takes them: values (rows, O), class indices (rows, 1), or slots (rows, 1).

    Raises:
        InputError: A label that the model cannot take.
        DataError: A stream with more labels than the model has ways.
    """
    if not spec.target.ways:
        return encode_targets(spec, table.targets())
    found = label_slots(table)
    most = int(found.max()) + 1
    if most > spec.target.ways:
        stream = table.stream_names[table.streams[int(found.argmax())]]
        raise DataError(
            f"{table.name}: stream {stream} has {most} labels, more than {spec.target.ways} ways; state "
            f"--ways {most} in training, or leave streams like it out"
        )
    return found[:, None].astype(np.float64)


def label_slots(table: Table) -> IntArray:
    """(rows,) slots of a table's labels, given out stream by stream in the order in which labels come."""
    targets = table.targets()
    slots = np.empty(table.rows, dtype=np.int64)
    for code in range(len(table.stream_names)):
        own: dict[tuple[type, object], int] = {}
        for row in np.flatnonzero(table.streams == code):
            label = targets[row]
            slots[row] = own.setdefault((type(label), label), len(own))
    return slots


def shuffle_slots(x: Tensor, y: Tensor, lags: slice, ways: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same tasks with their slots shuffled, each task in its own way.

    Args:
        x: (T, B, F) network inputs.
        y: (T, B) slots.
        lags: Columns of ``x`` that are known labels: ±1 for two ways, one-hot blocks for more.
        ways: N.
        generator: Draws the shuffles.
    """
    order = torch.rand(len(y), ways, generator=generator).argsort(1)  # slot c of task t becomes order[t, c]
    y = order.gather(1, y)
    known = x[..., lags]
    if not known.shape[-1]:
        return x, y
    if ways == 2:  # noqa: PLR2004 - two classes are one bit
        moved = known * torch.where(order[:, 0] == 0, 1.0, -1.0)[:, None, None]
    else:
        blocks = known.unflatten(-1, (-1, ways))  # (T, B, lags, N)
        source = order.argsort(1)[:, None, None].expand_as(blocks)
        moved = blocks.gather(-1, source).flatten(-2)
    x = x.clone()
    x[..., lags] = moved
    return x, y
