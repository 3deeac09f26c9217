"""Conjugate Bayesian linear regression in closed form: a posterior conditioned on rows, batched over streams."""

from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """W (S, M, d, O) and P (S, M, d, d): weights ~ N(W, σ² P) for each member."""

    W: Tensor
    P: Tensor


class Conditioned(NamedTuple):
    """What conditioning on a chunk of rows gave, from the state before it.

    Attributes:
        mean: (S, M, b, O) predictive means.
        v: (S, M, b, 1) marginal variance factors φᵀPφ.
        white: (S, M, b, O) residuals decorrelated by the Cholesky factor of I + ΦPΦᵀ.
        spread: (S, M, b, 1) that factor's diagonal.
    """

    mean: Tensor
    v: Tensor
    white: Tensor
    spread: Tensor


def condition(post: Posterior, phi: Tensor, target: Tensor) -> tuple[Posterior, Conditioned]:
    """Kalman update with features (S, 1 or M, b, d) and targets (S, 1 or M, b, O); zero rows change nothing."""
    mean = phi @ post.W
    residual = target - mean  # on padding φ = 0, so nothing of it reaches W or P
    cross = phi @ post.P  # (S, M, b, d)
    gram = cross @ phi.mT
    v = (cross * phi).sum(-1, keepdim=True)  # as ``predict`` has it, bit for bit
    if phi.shape[-2] == 1:  # one row needs no factorization
        spread = (1 + v).sqrt()
        gain, white = cross / spread, residual / spread
    else:
        factor = torch.linalg.cholesky(gram + torch.eye(phi.shape[-2], dtype=phi.dtype, device=phi.device))
        solved = torch.linalg.solve_triangular(factor, torch.cat([cross, residual], dim=-1), upper=False)
        gain, white = solved[..., : cross.shape[-1]], solved[..., cross.shape[-1] :]
        spread = factor.diagonal(dim1=-2, dim2=-1)[..., None]
    return _gained(post, gain, white), Conditioned(mean, v, white, spread)


def _gained(post: Posterior, gain: Tensor, white: Tensor) -> Posterior:
    """W + gᵀw and P - gᵀg; P is by far the largest tensor, so it is read once and written once."""
    if gain.shape[-2] == 1:
        return Posterior(post.W.addcmul(gain.mT, white), post.P.addcmul(gain.mT, gain, value=-1))
    rows, targets = gain.flatten(0, 1), white.flatten(0, 1)
    W = torch.baddbmm(post.W.flatten(0, 1), rows.mT, targets)
    P = torch.baddbmm(post.P.flatten(0, 1), rows.mT, rows, alpha=-1)
    return Posterior(W.view_as(post.W), P.view_as(post.P))
