"""Networks as pure functions over named tensors, one call for all streams: perceptrons and convolutions.

A linear layer's weight is ``(in, out)`` where all streams share it and ``(S, in, out)`` where each has its own; its
bias is ``(out,)`` or ``(S, out)``. Convolutions have ``(out, in, 3, 3)`` or ``(S, out, in, 3, 3)``. Both kinds may meet
in one network. ``network_of`` makes what a learner's hyper-parameter ``network`` names.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from models.types import Tensors


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"identity": _identity, "relu": torch.relu, "tanh": torch.tanh},
)


class Network(Protocol):
    """Shape of a network. The tensors live elsewhere: ``init`` makes them, ``apply`` takes them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors: weight then bias, layer by layer."""
        ...

    @property
    def width(self) -> int:
        """Width of what comes out."""
        ...

    @property
    def pixels(self) -> int:
        """How many inputs make one plane: those of an image, or 1."""
        ...

    def init(self, generator: torch.Generator) -> Tensors:
        """Draw shared tensors."""
        ...

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map rows ``x`` (S, B, in) to (S, B, width), each row on its own."""
        ...


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
        return _names(self.prefix, self.layers)

    @property
    def width(self) -> int:
        """Width of the last layer."""
        return self.sizes[-1]

    @property
    def pixels(self) -> int:
        """Every input is a plane of its own."""
        return 1

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


@dataclass(frozen=True, slots=True)
class Conv:
    """Shape of a convolutional network for square images whose pixels are the inputs, row by row, plane by plane.

    A block is a 3×3 convolution without bias, a normalisation, 2×2 max-pooling, a bias per channel and the activation,
    which as it never falls may come after the pooling. Four blocks of 64 filters are the Conv-4 of the few-shot
    literature, but for the normalisation: that of batches would make a prediction depend on the other rows asked
    about, or keep running statistics. Layer normalisation is over all the image's channels and pixels, instance
    normalisation over the pixels of each channel: nearer to that of batches, and better on drawings. Neither has a
    learned scale: the next filters, or the distance, find their own.

    Attributes:
        side: Height and width in pixels, at least 2 to the number of blocks.
        planes: Channels of the input.
        filters: Channels of each block.
        outputs: Width of a linear layer after the blocks; 0 leaves it out, and the last block's pixels come out.
        activation: Of each block, a name of ACTIVATIONS.
        norm: ``layer`` or ``instance``.
        prefix: Begins the tensors' names.

    Example:
        >>> net = Conv(side=28, filters=(64, 64, 64, 64))
        >>> net.apply(net.init(torch.Generator().manual_seed(0)), torch.zeros(3, 5, 784)).shape
        torch.Size([3, 5, 64])

    References:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra (2016). Matching networks for one shot learning. NeurIPS.
        Ba, Kiros, Hinton (2016). Layer normalization. arXiv 1607.06450.
        Ulyanov, Vedaldi, Lempitsky (2016). Instance normalization. arXiv 1607.08022.
    """

    side: int
    planes: int = 1
    filters: tuple[int, ...] = (64, 64, 64, 64)
    outputs: int = 0
    activation: str = "relu"
    norm: Literal["layer", "instance"] = "layer"
    prefix: str = ""

    def __post_init__(self) -> None:
        if not self.filters or min(*self.filters, self.planes) < 1 or self.outputs < 0:
            raise ValueError(f"a convolutional network needs blocks of positive widths, got {self.filters}")
        if self.side < 2 ** len(self.filters):
            raise ValueError(
                f"{len(self.filters)} blocks halve an image of side {self.side} to nothing: "
                f"take fewer blocks, or a side of {2 ** len(self.filters)} or more"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}, choose one of {', '.join(sorted(ACTIVATIONS))}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors: weight then bias, block by block, then the linear layer's."""
        return _names(self.prefix, len(self.filters) + (self.outputs > 0))

    @property
    def features(self) -> int:
        """Numbers that the last block gives."""
        return int(self.filters[-1] * (self.side // 2 ** len(self.filters)) ** 2)

    @property
    def width(self) -> int:
        """The linear layer's outputs, or without one the last block's numbers."""
        return self.outputs or self.features

    @property
    def pixels(self) -> int:
        """Inputs of one plane."""
        return self.side**2

    def init(self, generator: torch.Generator) -> Tensors:
        """Draw shared weights: normal of variance 2/(9·in) in the blocks, 1/in in the linear layer; biases are zero."""
        tensors: Tensors = {}
        for block, (fan_in, fan_out) in enumerate(pairwise((self.planes, *self.filters))):
            weight = torch.randn(fan_out, fan_in, 3, 3, generator=generator) * math.sqrt(2.0 / (9 * fan_in))
            tensors[f"{self.prefix}weight_{block}"] = weight
            tensors[f"{self.prefix}bias_{block}"] = torch.zeros(fan_out)
        if self.outputs:
            weight = torch.randn(self.features, self.outputs, generator=generator) / math.sqrt(self.features)
            tensors[f"{self.prefix}weight_{len(self.filters)}"] = weight
            tensors[f"{self.prefix}bias_{len(self.filters)}"] = torch.zeros(self.outputs)
        return tensors

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map rows ``x`` (S, B, planes·side²) to (S, B, width); other tensors in the mapping are ignored."""
        streams, rows = x.shape[:2]
        x = x.reshape(streams, rows, self.planes, self.side, self.side)
        for block in range(len(self.filters)):
            weight, bias = tensors[f"{self.prefix}weight_{block}"], tensors[f"{self.prefix}bias_{block}"]
            x = convolve(x, weight)
            groups = 1 if self.norm == "layer" else x.shape[2]
            x = functional.group_norm(x.flatten(0, 1), groups)
            x = functional.max_pool2d(x, 2).unflatten(0, (streams, rows))
            x = ACTIVATIONS[self.activation](x + bias.unsqueeze(-2)[..., None, None])  # (S or 1, 1, C, 1, 1)
        x = x.flatten(2)
        if not self.outputs:
            return x
        last = len(self.filters)
        return linear(x, tensors[f"{self.prefix}weight_{last}"], tensors[f"{self.prefix}bias_{last}"])


NETWORKS = ("conv", "conv_instance", "mlp")
"""What the hyper-parameter ``network`` may be."""


def network_of(
    kind: str,
    inputs: int,
    hidden: Sequence[int],
    outputs: int = 0,
    *,
    activation: str = "relu",
    last: str = "identity",
    context: int = 0,
    prefix: str = "",
) -> Network:
    """The network that a learner's hyper-parameters describe.

    Args:
        kind: ``mlp``, or where the inputs are the pixels of a square image ``conv``, with layer normalisation, or
            ``conv_instance``.
        inputs: F, inputs of a row.
        hidden: Widths of the hidden layers, or filters of the blocks.
        outputs: Width of a linear layer at the end; 0 leaves it out.
        activation: Between layers.
        last: After the last layer of a perceptron; a convolutional embedding is bounded as it is, by its normalisation.
        context: Further inputs, each repeated over ``pixels``.
        prefix: Begins the tensors' names.

    Raises:
        ValueError: An unknown kind, a convolution for inputs that make no square, or more blocks than the image allows.
    """
    if kind == "mlp":
        sizes = (inputs + context, *hidden, outputs) if outputs else (inputs + context, *hidden)
        return Mlp(sizes, activation=activation, last=last, prefix=prefix)
    if kind not in NETWORKS:
        raise ValueError(f"unknown network {kind!r}, choose one of {', '.join(NETWORKS)}")
    side = math.isqrt(inputs)
    if side**2 != inputs:
        raise ValueError(f"the network {kind} takes a square image's pixels, and {inputs} inputs make no square")
    norm: Literal["layer", "instance"] = "layer" if kind == "conv" else "instance"
    return Conv(side, 1 + context, tuple(hidden), outputs, activation, norm, prefix)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with 3×3 filters that keeps the image's size; what lies outside is zero.

    Args:
        x: (S, B, in, H, W).
        weight: (out, in, 3, 3), or (S, out, in, 3, 3) for filters of each stream.

    Returns:
        (S, B, out, H, W).
    """
    streams, rows = x.shape[:2]
    if weight.dim() == 4:  # noqa: PLR2004  # shared by the streams
        out = functional.conv2d(x.flatten(0, 1), weight, padding=1)
        return out.view(streams, rows, *out.shape[1:])
    side_by_side = x.transpose(0, 1).flatten(1, 2)  # (B, S·in, H, W): a stream is a group of channels
    out = functional.conv2d(side_by_side, weight.flatten(0, 1), padding=1, groups=streams)
    return out.view(rows, streams, weight.shape[1], *out.shape[2:]).transpose(0, 1)


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


def _names(prefix: str, layers: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{kind}_{layer}" for layer in range(layers) for kind in ("weight", "bias"))
