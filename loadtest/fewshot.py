"""What the few-shot benchmarks share: adapt new streams, and say on what machine it was."""

import os
import platform

import torch

from loadtest.machine import processor
from models import Batch, Learner, Tensors


def adapted(learner: Learner, meta: Tensors, support: Batch) -> Tensors:
    """State of new streams that have learned ``support``, which may have no rows."""
    state = learner.init(meta, support.x.shape[0])
    if support.x.shape[1] == 0:
        return state
    with torch.no_grad():
        return learner.update(meta, state, support, support)[0]


def first_rows(batch: Batch, count: int) -> Batch:
    """The first rows of each task."""
    return Batch(*(tensor[:, :count] for tensor in batch))


def machine() -> str:
    """Processor, cores, and versions, in one line."""
    name, python = processor(), platform.python_version()
    return f"{name}, {os.cpu_count()} cores, 1 thread; Python {python}, torch {torch.__version__}"
