"""CAVIA: a few context parameters are adapted, the network is not."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.learners.maml import Maml
from models.networks import Network, network_of
from models.types import Tensors


@dataclass(frozen=True)
class Cavia(Maml):
    """f(x, c) with context c = 0 at the start of a task; the inner steps move c, the outer loop everything else.

    A stream's own is the context, a handful of numbers. The other options are MAML's.

    Attributes:
        inner_lr: Rate of the inner steps; the context wants a great one.
        gradient_clip: Greatest norm of a context's gradient.
        context: Number of context parameters, concatenated to the input.

    Reference:
        Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson (2019). Fast context adaptation via meta-learning. ICML.
    """

    inner_lr: float = 1.0
    gradient_clip: float = 10.0
    context: int = 5

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ValueError(f"context must be 1 or more parameters, got {self.context}")
        super().__post_init__()

    @property
    def net(self) -> Network:
        """The network, over inputs and context; of an image, each context parameter is a plane beside it."""
        return network_of(
            self.network, self.inputs, self.hidden, self.outputs, activation=self.activation, context=self.context
        )

    @property
    def fast_names(self) -> tuple[str, ...]:
        """The context alone."""
        return ("context",)

    def start(self, meta: Tensors) -> Tensors:
        """A context of zeros: another start would be a part of the first bias."""
        return {"context": meta["bias_0"].new_zeros(self.context)}

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The network on each row with the context (context,) or (S, context) of its stream."""
        net = self.net
        planes = tensors["context"].repeat_interleave(net.pixels, dim=-1)
        planes = planes.unsqueeze(-2).expand(*x.shape[:-1], -1)  # (S, B, context·pixels)
        return net.apply(tensors, torch.cat([x, planes], dim=-1))
