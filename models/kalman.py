"""Conjugate Bayesian linear regression in closed form: a posterior conditioned on rows, batched over streams."""

from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """W (S, M, d, O) and P (S, M, d, d): weights ~ N(W, σ² P) for each member."""

    W: Tensor
    P: Tensor


class Conditioned(NamedTuple):
    """What conditioning on a chunk of rows takes and shows, from the state before it.

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


def foresee(mean: Tensor, cross: Tensor, phi: Tensor, target: Tensor) -> tuple[Conditioned, Tensor]:
    """What rows show of a posterior that foresaw them, and the gain g (S, M, b, d): it moves by gᵀw and -gᵀg.

    Args:
        mean: (S, M, b, O) φᵀW.
        cross: (S, M, b, d) φᵀP.
        phi: (S, 1 or M, b, d) features; zero rows show nothing.
        target: (S, 1 or M, b, O).
    """
    residual = target - mean  # on padding φ = 0, so nothing of it reaches W or P
    v = (cross * phi).sum(-1, keepdim=True)  # as ``predict`` has it, bit for bit
    if phi.shape[-2] == 1:  # one row needs no factorization
        spread = (1 + v).sqrt()
        return Conditioned(mean, v, residual / spread, spread), cross / spread
    factor = torch.linalg.cholesky(cross @ phi.mT + torch.eye(phi.shape[-2], dtype=phi.dtype, device=phi.device))
    solved = torch.linalg.solve_triangular(factor, torch.cat([cross, residual], dim=-1), upper=False)
    gain, white = solved[..., : cross.shape[-1]], solved[..., cross.shape[-1] :]
    return Conditioned(mean, v, white, factor.diagonal(dim1=-2, dim2=-1)[..., None]), gain


def condition(
    post: Posterior, phi: Tensor, target: Tensor, gamma: Tensor | None = None
) -> tuple[Posterior, Conditioned]:
    """Kalman update with features (S, 1 or M, b, d) and targets (S, 1 or M, b, O); zero rows change nothing.

    With ``gamma`` (S, M, 1, 1) the covariance is also scaled by its square.
    """
    found, gain = foresee(phi @ post.W, phi @ post.P, phi, target)
    return _gained(post, gain, found.white, gamma), found


def _gained(post: Posterior, gain: Tensor, white: Tensor, gamma: Tensor | None) -> Posterior:
    """W + gᵀw and γ²(P - gᵀg); P is by far the largest tensor, so that every pass over it counts."""
    one_row, P = gain.shape[-2] == 1, post.P
    if one_row:
        W = post.W.addcmul(gain.mT, white)
    else:
        W = torch.baddbmm(post.W.flatten(0, 1), gain.flatten(0, 1).mT, white.flatten(0, 1)).view_as(post.W)
    if gamma is not None:
        P, gain = P * gamma.square(), gain * gamma
    if one_row:
        return Posterior(W, P.addcmul(gain.mT, gain, value=-1))
    rows = gain.flatten(0, 1)
    return Posterior(W, torch.baddbmm(P.flatten(0, 1), rows.mT, rows, alpha=-1).view_as(P))
