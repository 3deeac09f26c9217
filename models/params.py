"""Many tensors as one vector, so that an optimizer is a few operations whatever the network."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.types import Tensors


class Layout(NamedTuple):
    """Names and shapes of the tensors in a vector, in its order."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]


def flatten(tensors: Tensors) -> tuple[Tensor, Layout]:
    """All tensors, of one floating type, copied into one vector (N,)."""
    layout = Layout(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()]), layout


def unflatten(vector: Tensor, layout: Layout) -> Tensors:
    """The tensors as views of the vector; gradients flow back to it."""
    parts = torch.split(vector, [shape.numel() for shape in layout.shapes])
    return {name: part.view(shape) for name, shape, part in zip(layout.names, layout.shapes, parts, strict=True)}
