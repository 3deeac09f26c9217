"""Learned positive numbers that stay near where they began."""

import torch
from torch import Tensor

_RANGE = 3.0


def bounded(base: float, free: Tensor) -> Tensor:
    """``base·exp(3·tanh(free/3))``: positive, within a factor of e³ ≈ 20 of ``base``, which is where 0 leads."""
    return base * torch.exp(_RANGE * torch.tanh(free / _RANGE))
