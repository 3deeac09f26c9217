"""Noise whose variance has a posterior of its own: what is foreseen has Student's tails until rows have told it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.kalman import Conditioned
from models.losses import masked_sum, student_t_log_density, student_t_nll
from models.types import Batch, Predictive, Tensors

_LOG_2PI = math.log(2 * math.pi)
_KEPT = ("noise_shape", "noise_scale")


@dataclass(frozen=True, slots=True)
class UnknownNoise:
    """σ² ~ InvGamma(a, b) of each output; with the head's weights it is the conjugate normal-inverse-gamma model.

    After rows with decorrelated residuals z: a = a₀ + n/2 and b = b₀ + ½ Σ z². A row is foreseen by Student's t with 2a
    degrees of freedom, location m and squared scale b/a·(1+v). Rows fade at ``rate``, and the prior returns, as for the
    head. Prior level b₀/a₀ and shape a₀ > 1 are meta-learned: how noisy streams are, and how much they differ in it.

    Args:
        outputs: O.
        rate: How much of a row's weight goes with each further row; 0 keeps all.

    Reference:
        Bishop (2006). Pattern recognition and machine learning, 2.3.6 and 3.3 (with unknown variance).
    """

    outputs: int
    rate: float

    def meta_init(self) -> Tensors:
        """A prior that is worth six rows."""
        return {"log_noise": torch.full((self.outputs,), -1.0), "log_shape": torch.tensor(math.log(2.0))}

    def init(self, meta: Tensors, streams: int, members: int) -> Tensors:
        """Every member at the prior."""
        shape, scale = _prior(meta)
        return {
            "noise_shape": shape.expand(streams, members, 1).clone(),
            "noise_scale": scale.expand(streams, members, -1).clone(),
        }

    def targets(self, batch: Batch) -> Tensor:
        """The labels as they are."""
        return batch.y

    def predictive(self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor) -> Predictive:
        """Student's t by its mean, its variance b/(a-1)·(1+v), and its degrees of freedom."""
        del meta
        level = state["noise_scale"] / (state["noise_shape"] - 1)
        return Predictive(mean, level[:, :, None, :] * (1 + v), 2 * state["noise_shape"][..., 0])

    def evidence(self, meta: Tensors, state: Tensors, found: Conditioned, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the decorrelated residuals: their multivariate t, and a t of few degrees of freedom for each."""
        del meta
        mask = batch.mask[:, None]
        shape, scale = state["noise_shape"], state["noise_scale"]
        chained = self.outputs * found.spread.log()[..., 0]
        half = 0.5 * batch.mask.sum(1)[:, None, None]  # (S, 1, 1)
        told = 0.5 * masked_sum(found.white.square().transpose(-1, -2), mask[:, :, None])  # (S, M, O)
        gained = torch.lgamma(shape + half) - torch.lgamma(shape) - half * _LOG_2PI
        gained = gained + shape * scale.log() - (shape + half) * (scale + told).log()
        level = (scale / shape)[:, :, None, :]
        robust = student_t_log_density(found.white, level, torch.zeros_like(found.white)) - chained
        return gained.sum(-1) - masked_sum(chained, mask), masked_sum(robust, mask)

    def learn(
        self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor, found: Conditioned, batch: Batch
    ) -> Tensors:
        """The posterior of σ² after the batch."""
        del mean, v
        later = batch.mask.sum(1, keepdim=True) - batch.mask.cumsum(1)  # rows that count and follow this one
        keep = 1.0 - self.rate
        weight = torch.where(batch.mask, 0.5 * keep**later, 0.0)[:, None, :, None]  # (S, 1, B, 1)
        squares = torch.where(batch.mask[:, None, :, None], found.white.square(), 0.0)
        fade = (keep ** batch.mask.sum(1))[:, None, None].to(squares.dtype)
        shape, scale = _prior(meta)
        return {
            "noise_shape": torch.lerp(shape, state["noise_shape"], fade) + weight.sum(2),
            "noise_scale": torch.lerp(scale, state["noise_scale"], fade) + (weight * squares).sum(2),
        }

    def reset(self, state: Tensors, live: Tensor, restart: Tensor, *, handed_over: bool) -> Tensors:
        """Whoever takes over the challenger takes its posterior; one that restarts takes the live ones' mean."""
        moved = {}
        for name in _KEPT:
            value = state[name]
            kept = torch.where(live[..., None], value[:, -1:], value[:, :-1]) if handed_over else value[:, :-1]
            own = torch.where(restart[:, None, None], kept.mean(1, keepdim=True), value[:, -1:])
            moved[name] = torch.cat([kept, own], dim=1)
        return moved

    def level(self, state: Tensors) -> Tensor:
        """The mean of the live members' expected variances."""
        return (state["noise_scale"] / (state["noise_shape"] - 1))[:, :-1].mean(1)

    def anew(self, state: Tensors) -> Tensors:
        """The mean of the live members' posteriors."""
        return {name: state[name][:, :-1].mean(1, keepdim=True) for name in _KEPT}

    def nll(self, meta: Tensors, mean: Tensor, v: Tensor, batch: Batch, white: Tensor, age: Tensor) -> Tensor:
        """−log of Student's t given the rows known to each."""
        known = (age >= 0) & batch.mask[:, None]  # (T, i, j)
        weight = torch.where(known, 0.5 * (1.0 - self.rate) ** age.clamp_min(0), 0.0).to(v.dtype)
        shape, scale = _prior(meta)
        shape, scale = shape + weight.sum(-1, keepdim=True), scale + weight @ white.square()
        return student_t_nll(mean, scale / (shape - 1) * (1 + v), 2 * shape, batch.y)


def _prior(meta: Tensors) -> tuple[Tensor, Tensor]:
    """a₀ (1,) and b₀ (O,)."""
    shape = 1.0 + meta["log_shape"].exp()[None]
    return shape, shape * meta["log_noise"].exp()
