"""Multi-layer perceptrons as pure functions over named tensors, one call for all streams.

A layer's weight is ``(in, out)`` where all streams share it and ``(S, in, out)`` where each has its own; its bias is
``(out,)`` or ``(S, out)``. Both kinds may meet in one network.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from models.types import Tensors


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"identity": _identity, "relu": torch.relu, "tanh": torch.tanh},
)


@dataclass(frozen=True, slots=True)
class Mlp:
    """Shape of a multi-layer perceptron. The tensors live elsewhere: ``init`` makes them, ``apply`` takes them.

    Attributes:
        sizes: Widths from the input to the output, two or more.
        activation: Between layers, a name of ACTIVATIONS.
        last: After the last layer, a name of ACTIVATIONS.
        prefix: Begins the tensors' names: ``{prefix}weight_0``, ``{prefix}bias_0``, and so on.

    Example:
        >>> net = Mlp((1, 40, 40, 1))
        >>> net.apply(net.init(torch.Generator().manual_seed(0)), torch.zeros(3, 5, 1)).shape
        torch.Size([3, 5, 1])
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    last: str = "identity"
    prefix: str = ""

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:  # noqa: PLR2004  # an input and an output
            raise ValueError(f"a network needs two or more positive widths, got {self.sizes}")
        for name in (self.activation, self.last):
            if name not in ACTIVATIONS:
                raise ValueError(f"unknown activation {name!r}, choose one of {', '.join(sorted(ACTIVATIONS))}")

    @property
    def layers(self) -> int:
        """Number of linear layers."""
        return len(self.sizes) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors: weight then bias, layer by layer."""
        return tuple(f"{self.prefix}{kind}_{layer}" for layer in range(self.layers) for kind in ("weight", "bias"))

    def init(self, generator: torch.Generator) -> Tensors:
        """Draw shared weights: normal of variance 2/in before a ReLU, 1/in elsewhere; biases are zero."""
        tensors: Tensors = {}
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            gain = 2.0 if self.activation == "relu" and layer < self.layers - 1 else 1.0
            weight = torch.randn(fan_in, fan_out, generator=generator) * math.sqrt(gain / fan_in)
            tensors[f"{self.prefix}weight_{layer}"] = weight
            tensors[f"{self.prefix}bias_{layer}"] = torch.zeros(fan_out)
        return tensors

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map rows ``x`` (S, B, in) to (S, B, out); other tensors in the mapping are ignored."""
        between, after = ACTIVATIONS[self.activation], ACTIVATIONS[self.last]
        for layer in range(self.layers):
            weight, bias = tensors[f"{self.prefix}weight_{layer}"], tensors[f"{self.prefix}bias_{layer}"]
            x = linear(x, weight, bias)
            x = between(x) if layer < self.layers - 1 else after(x)
        return x


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias``.

    Args:
        x: (S, B, in).
        weight: (in, out), or (S, in, out) for weights of each stream.
        bias: (out,), or (S, out).

    Returns:
        (S, B, out).
    """
    if bias.dim() > 1:
        bias = bias.unsqueeze(-2)  # (S, 1, out)
    if weight.dim() == 2:  # noqa: PLR2004  # shared by the streams
        return x @ weight + bias
    if bias.dim() == 1:
        bias = bias.expand(x.shape[0], 1, -1)
    return torch.baddbmm(bias, x, weight)


def per_stream(tensors: Mapping[str, Tensor], names: Sequence[str], streams: int) -> Tensors:
    """Shared tensors with a leading stream axis (a view: nothing is copied)."""
    return {name: tensors[name].expand(streams, *tensors[name].shape) for name in names}
