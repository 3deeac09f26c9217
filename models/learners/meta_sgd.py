"""Meta-SGD: an initialization together with a learned rate for every parameter."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.learners.bounded import bounded
from models.learners.gradient import GradientLearner
from models.types import Tensors


@dataclass(frozen=True)
class MetaSgd(GradientLearner):
    """Rates are positive and stay within a factor of e³ of ``inner_lr``: free ones explode past the trained steps.

    Reference:
        Li, Zhou, Chen, Li (2017). Meta-SGD: learning to learn quickly for few-shot learning. arXiv 1707.09835.
    """

    def rates_init(self) -> Tensors:
        """``free_rate_…``, one for each tensor of the network, of its shape."""
        shapes = self.net.init(torch.Generator())
        return {f"free_rate_{name}": torch.zeros_like(tensor) for name, tensor in shapes.items()}

    def rates(self, meta: Tensors, step: int) -> Mapping[str, Tensor]:  # noqa: ARG002  # the same at every step
        """A rate for each parameter."""
        return {name: bounded(self.inner_lr, meta[f"free_rate_{name}"]) for name in self.net.names}
