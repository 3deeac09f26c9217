"""Features φ(x) of a linear head: a constant, a body's, the inputs, their products, waves, a start's answer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks import Network
from models.types import Tensors

PRODUCT_CLIP = 9.0
"""A product of two standardised inputs beyond this is cut."""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""Inverse widths of the Gaussian kernels that random features stand for, in units of the inputs' root mean square."""
DRAWN = ("fourier_weights", "fourier_phases")
"""Tensors that stay as they were drawn."""


@dataclass(frozen=True, slots=True)
class Basis:
    """φ: (…, F) inputs to (…, d) features.

    Args:
        inputs: F.
        body: The network, or ``None``.
        skip: Whether the standardised inputs are features too.
        quadratic: Number of leading inputs whose products are features.
        random_features: Number of waves cos(ωᵀx + b), drawn once and never trained.
        start_columns: Number of last inputs that are features as they are, and nothing else.
    """

    inputs: int
    body: Network | None
    skip: bool
    quadratic: int
    random_features: int
    start_columns: int

    @property
    def own(self) -> int:
        """Number of inputs that are no start's answer."""
        return self.inputs - self.start_columns

    @property
    def width(self) -> int:
        """Number of features d."""
        products = self.quadratic * (self.quadratic + 1) // 2
        body = self.body.width if self.body else 0
        return 1 + body + self.start_columns + (self.own if self.skip else 0) + products + self.random_features

    def init(self, generator: torch.Generator) -> Tensors:
        """Draw the body, then the waves: ω Gaussian with one bandwidth after the other, b even over a period."""
        meta = self.body.init(generator) if self.body else {}
        if self.random_features:
            widths = torch.tensor(BANDWIDTHS)[torch.arange(self.random_features) % len(BANDWIDTHS)]
            weights = torch.randn(self.own, self.random_features, generator=generator) * widths / math.sqrt(self.own)
            phases = 2 * math.pi * torch.rand(self.random_features, generator=generator)
            meta |= {"fourier_weights": weights, "fourier_phases": phases}
        return meta

    def apply(self, meta: Tensors, x: Tensor) -> Tensor:
        """φ(x)."""
        own = x[..., : self.own]
        parts = [torch.ones_like(x[..., :1])]
        if self.body:
            parts.append(self.body.apply(meta, x))
        if self.skip:
            parts.append(own / math.sqrt(own.shape[-1]))
        if self.quadratic:
            first, second = torch.triu_indices(self.quadratic, self.quadratic, device=x.device)
            products = (own[..., first] * own[..., second]).clamp(-PRODUCT_CLIP, PRODUCT_CLIP)
            parts.append(products / math.sqrt(len(first)))
        if self.random_features:
            waves = torch.cos(own @ meta["fourier_weights"] + meta["fourier_phases"])
            parts.append(waves * math.sqrt(2 / self.random_features))
        if self.start_columns:
            parts.append(x[..., -self.start_columns :])
        return torch.cat(parts, dim=-1)
