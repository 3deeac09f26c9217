"""Losses and log densities, a value per row or per stream, and the masked sums between the two.

Shapes: targets and means are (…, B, O), class indices (…, B), masks (…, B); leading axes broadcast.
"""

import math

import torch
from torch import Tensor

_LOG_TWO_PI = math.log(2.0 * math.pi)
TAILS_DF = 5.0
"""Degrees of freedom of the Student-t that members are weighed with: fewer need more rows, more trust an outlier."""


def masked_sum(rows: Tensor, mask: Tensor) -> Tensor:
    """Sum over the rows that count: (…, B) -> (…). What padding holds is never seen, NaN included."""
    return torch.where(mask, rows, 0.0).sum(-1)


def masked_mean(rows: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows that count: (…, B) -> (…); 0 where none does."""
    return masked_sum(rows, mask) / mask.sum(-1).clamp(min=1)


def squared_error(mean: Tensor, y: Tensor) -> Tensor:
    """Squared error of each row, mean over the outputs: (…, B)."""
    return (mean - y).square().mean(-1)


def cross_entropy(log_probabilities: Tensor, y: Tensor) -> Tensor:
    """−log p of each row's class: (…, B).

    Args:
        log_probabilities: (…, B, C), normalised.
        y: (…, B) int64 class indices, 0 ≤ y < C on padding too.
    """
    index = y.unsqueeze(-1).expand(*log_probabilities.shape[:-1], 1)
    return -log_probabilities.gather(-1, index).squeeze(-1)


def gaussian_nll(mean: Tensor, var: Tensor, y: Tensor) -> Tensor:
    """−log N(y; mean, var) of each row in nats, summed over independent outputs: (…, B)."""
    return 0.5 * (_LOG_TWO_PI + var.log() + (y - mean).square() / var).sum(-1)


def student_t_log_density(mean: Tensor, var: Tensor, y: Tensor, *, df: float = TAILS_DF) -> Tensor:
    """Log density of each row under heavy tails, in nats, summed over independent outputs: (…, B).

    Student's t with ``df`` degrees of freedom, location ``mean`` and squared scale ``var``: a lone outlier costs about
    ½(df + 1)·log e² nats instead of e²/2, so that it takes several surprising rows to convince a test.
    """
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    tail = torch.log1p((y - mean).square() / (df * var))
    return (constant - 0.5 * var.log() - 0.5 * (df + 1) * tail).sum(-1)


def student_t_nll(mean: Tensor, var: Tensor, df: Tensor, y: Tensor) -> Tensor:
    """−log of Student's t with this mean, variance and ``df`` > 2, in nats, summed over independent outputs: (…, B).

    Args:
        mean: (…, B, O).
        var: (…, B, O) variances: the squared scale is (df - 2)/df of it.
        df: (…, B, 1).
        y: (…, B, O).
    """
    squared = (df - 2) * var
    constant = torch.lgamma(df / 2) - torch.lgamma((df + 1) / 2) + 0.5 * math.log(math.pi)
    tail = torch.log1p((y - mean).square() / squared)
    return (constant + 0.5 * squared.log() + 0.5 * (df + 1) * tail).sum(-1)


def track_variance(
    variance: Tensor, squared: Tensor, mask: Tensor, *, rate: float = 0.005, bound: float = 9.0
) -> Tensor:
    """Exponentially weighted variance after a batch, robust to outliers.

    Row by row ``v ← (1 − rate)·v + rate·min(squared, bound·v₀)`` with v₀ the variance before the batch.

    Args:
        variance: (S, O), > 0.
        squared: (S, B, O) squared errors, each already divided by what is expected beyond the noise.
        mask: (S, B); rows that do not count take no time.
        rate: Weight of a row.
        bound: A row counts for this many variances at most.

    Returns:
        (S, O).
    """
    clipped = torch.minimum(squared, bound * variance.unsqueeze(-2))
    count = mask.sum(-1, keepdim=True).to(variance.dtype)
    later = count - mask.cumsum(-1)  # rows that count and follow this one
    weight = torch.where(mask, rate * (1.0 - rate) ** later, 0.0).unsqueeze(-1)
    gained = torch.where(mask.unsqueeze(-1), weight * clipped, 0.0).sum(-2)
    return (1.0 - rate) ** count * variance + gained
