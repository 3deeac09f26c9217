"""From the members' answers to the one that is served: a mixture, and what the stream's own rows teach about it.

Numbers are *stacked*: a small Bayesian head learns, per stream and output, how the mixture's error follows from each
member's deviation from the mixture and from the errors before (Wolpert 1992; here recursive, with reversion to zero).
Classes are *pooled*: the served log probabilities are a weighted sum of the mixture's and of the members' deviations
from it (logarithmic opinion pool), so that what is said can be sharpened, blunted, or moved towards a member. The
weights have a Gaussian posterior, moved by one Newton step on the log loss a row with the Fisher information in place
of the Hessian. The mixture alone is where both start and what both revert to. Intervals are widened or narrowed until
they hold what they promise: for a grid of levels the quantile of the standardised error is tracked online (Gibbs,
Candès: Adaptive conformal inference under distribution shift, 2021).

All of it is learned from what had been *said* when a row was asked for, which a late label brings along: what members
would say just before they learn flatters those that forget fast.

State of a stream: ``combination.W`` (S, O, d, 1) and ``combination.P`` (S, O, d, d), the head; ``combination.errors``
(S, O, R), running means of the mixture's error; ``combination.reach`` (S, O, Q), log ratios to a normal's quantiles;
for classes ``combination.pool`` (S, M + 1), weights of the members and the mixture, and ``combination.pool_P``
(S, M + 1, M + 1), their covariance.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from models import committee
from models.kalman import Posterior, condition
from models.losses import masked_sum, student_t_log_density
from models.types import ModelSpec, Predictive, Tensors

ERROR_RATES = (1.0, 0.3, 0.05)
"""Rates, per row, of the running means of the mixture's error; 1 is the last error known."""
ERROR_CLIP = 5.0
"""An error beyond this many standard deviations of the training targets is cut."""
STACK_VARIANCE = 0.03
"""Prior variance of a stacking weight, in units of the noise."""
STACK_TAU_ROWS = 3000.0
CORRECTION_MAX = 3.0
"""The mixture is corrected by at most this many of its own standard deviations."""
POOL_VARIANCE, POOL_MIXTURE_VARIANCE = 0.01, 0.3
"""Prior variance of a member's weight around 0, and of the mixture's around 1."""
POOL_TAU_ROWS = 3000.0
POOL_FLOOR = -6.0
"""A log probability below this counts as this."""
POOL_CHUNK_ROWS = 16
LEVELS = (0.5, 0.6827, 0.8, 0.9, 0.95, 0.99)
"""Coverages whose quantiles are tracked; the second gives the standard deviation."""
REACH_RATE = 0.03
REACH_MAX = math.log(20.0)
_NORMAL = tuple(NormalDist().inv_cdf(0.5 + level / 2) for level in LEVELS)


class Said(NamedTuple):
    """What was said of rows when they were asked for.

    Attributes:
        members: (S, M, B, ·) the live members' distributions.
        mixture: (S, B, ·) theirs and the challenger's, mixed.
        errors: (S, B, O, R) running means of the mixture's error at that time (regression; else empty).
        served: (S, B, ·) what was answered.
    """

    members: Predictive
    mixture: Predictive
    errors: Tensor
    served: Predictive


def init_combination(spec: ModelSpec, streams: int, members: int) -> Tensors:
    """Nothing learned yet: the mixture is served as it is."""
    if spec.task == "classification":
        if not spec.stacked:
            return {}
        start, prior = _pool_prior(members)
        return {
            "combination.pool": start.expand(streams, -1).clone(),
            "combination.pool_P": prior.expand(streams, -1, -1).clone(),
        }
    state = {"combination.reach": torch.zeros(streams, spec.outputs, len(LEVELS))}
    if spec.stacked:
        width = members + 1 + len(ERROR_RATES)
        state |= {
            "combination.W": torch.zeros(streams, spec.outputs, width, 1),
            "combination.P": (STACK_VARIANCE * torch.eye(width)).expand(streams, spec.outputs, -1, -1).clone(),
            "combination.errors": torch.zeros(streams, spec.outputs, len(ERROR_RATES)),
        }
    return state


def say(spec: ModelSpec, state: Tensors, live: Predictive, mixture: Predictive) -> Said:
    """The served distribution, and all that a label needs later.

    Args:
        spec: The model.
        state: The streams' state.
        live: (S, M, B, ·) live members.
        mixture: (S, B, ·) members and challenger, mixed.
    """
    none = mixture.mean.new_zeros(0)
    if not spec.stacked:
        return Said(live, mixture, none, mixture)
    if spec.task == "classification":
        pooled = _pooled(state["combination.pool"], _votes(live, mixture))
        return Said(live, mixture, none, Predictive(pooled, mixture.var))
    errors = state["combination.errors"][:, None].expand(*mixture.mean.shape, -1)
    said = Said(live, mixture, errors, mixture)
    correction = (_deviations(said) @ state["combination.W"])[..., 0].transpose(1, 2)  # (S, B, O)
    reach = CORRECTION_MAX * mixture.var.sqrt()
    served = mixture.mean + torch.minimum(torch.maximum(correction, -reach), reach)
    return said._replace(served=Predictive(served, mixture.var))


def learn(spec: ModelSpec, state: Tensors, said: Said, y: Tensor, mask: Tensor) -> Tensors:
    """What a batch teaches about combining: whom to weigh how much, and how to correct the mixture.

    Args:
        spec: The model.
        state: Before the batch.
        said: What had been said of its rows.
        y: (S, B, O) targets in the learners' scale, or (S, B) class indices.
        mask: (S, B).

    Returns:
        The new ``weights`` and ``combination`` entries.
    """
    rate = learning_rate(spec)
    likely = rate * evidence_of(spec, said, y, mask)
    new = {"weights": committee.update_weights(state["weights"], likely, mask.sum(1), spec.share * rate**2)}
    if spec.task == "classification":
        if spec.stacked:
            new |= _learn_pool(spec, state, said, y, mask)
        return new
    new["combination.reach"] = _learn_reach(spec, state["combination.reach"], said.served, y, mask)
    if not spec.stacked:
        return new
    error = (y - said.mixture.mean).clamp(-ERROR_CLIP, ERROR_CLIP)
    phi = _deviations(said) * mask[:, None, :, None]
    target = (error * mask[..., None]).transpose(1, 2)[..., None]  # (S, O, B, 1)
    post = Posterior(state["combination.W"], state["combination.P"])
    for start in range(0, phi.shape[2], 64):
        post, _ = condition(post, phi[:, :, start : start + 64], target[:, :, start : start + 64])
    tau = STACK_TAU_ROWS * math.sqrt(1 + spec.delay_rows)
    count = mask.sum(1)
    keep = (0.5 * math.log1p(-1 / tau) * count).exp()[:, None, None, None]
    prior = STACK_VARIANCE * torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device)
    moved = {"combination.W": keep * post.W, "combination.P": torch.lerp(prior, post.P, keep.square())}
    new |= {key: torch.where((count > 0)[:, None, None, None], value, state[key]) for key, value in moved.items()}
    new["combination.errors"] = _learn_errors(state["combination.errors"], error, mask)
    return new


def evidence_of(spec: ModelSpec, said: Said, y: Tensor, mask: Tensor) -> Tensor:
    """Log-likelihood (S, M) of rows under what each live member had said, heavy-tailed for regression."""
    if spec.task == "classification":
        return -masked_sum(committee.member_nll(spec.task, said.members, y), mask[:, None])
    return masked_sum(student_t_log_density(said.members.mean, said.members.var, y[:, None]), mask[:, None])


def reach_of(reach: Tensor, level: float) -> Tensor:
    """Half the width of the interval that holds ``level`` of the labels, in predicted standard deviations.

    Args:
        reach: (…, Q) a state's.
        level: Coverage in (0, 1).
    """
    wanted = NormalDist().inv_cdf(0.5 + level / 2)
    above = next((at for at, normal in enumerate(_NORMAL) if normal >= wanted), len(_NORMAL))
    if above == 0 or above == len(_NORMAL):
        ratio = reach[..., min(above, len(_NORMAL) - 1)]
    else:
        low, high = _NORMAL[above - 1], _NORMAL[above]
        ratio = torch.lerp(reach[..., above - 1], reach[..., above], (wanted - low) / (high - low))
    return wanted * ratio.exp()


def width_said(spec: ModelSpec, members: int) -> int:
    """Numbers that ``pack`` makes of a row."""
    if spec.task == "classification":
        return (members + 1) * spec.outputs
    return spec.outputs * (2 * members + 3 + (len(ERROR_RATES) if spec.stacked else 0))


def pack(spec: ModelSpec, said: Said) -> Tensor:
    """One vector a row (S, B, K), to be kept until the label comes."""
    members = said.members.mean.transpose(1, 2).flatten(2)
    if spec.task == "classification":
        return torch.cat([members, said.mixture.mean], dim=-1)
    spread = said.members.var.transpose(1, 2).flatten(2)
    parts = [members, spread, said.mixture.mean, said.mixture.var, said.served.mean]
    if spec.stacked:
        parts.append(said.errors.flatten(2))
    return torch.cat(parts, dim=-1)


def earlier(spec: ModelSpec, now: Said, packed: Tensor) -> Said:
    """What had been said of rows, as ``pack`` kept it (S, B, K), or is said now where that is NaN."""
    members = now.members.mean.shape[1]
    return unpack(spec, torch.where(packed.isnan(), pack(spec, now), packed), members)


def unpack(spec: ModelSpec, packed: Tensor, members: int) -> Said:
    """The inverse of ``pack``; of classes the answer itself is not kept, it is not learned from."""
    outputs = spec.outputs
    sizes = [members * outputs]
    if spec.task == "classification":
        first, mixture = packed.split([*sizes, outputs], dim=-1)
        none = packed.new_zeros(0)
        live = Predictive(first.unflatten(-1, (members, outputs)).transpose(1, 2), none)
        return Said(live, Predictive(mixture, none), none, Predictive(mixture, none))
    rates = len(ERROR_RATES) if spec.stacked else 0
    mean, var, middle, spread, served, errors = packed.split(
        [*sizes, *sizes, outputs, outputs, outputs, rates * outputs], dim=-1
    )
    live = Predictive(*(part.unflatten(-1, (members, outputs)).transpose(1, 2) for part in (mean, var)))
    then = errors.unflatten(-1, (outputs, rates)) if rates else errors
    return Said(live, Predictive(middle, spread), then, Predictive(served, spread))


def learning_rate(spec: ModelSpec) -> float:
    """How much one late row counts: labels that come d rows late show d rows that one decision was made for.

    With feedback delayed by d, regret grows by a factor √(1 + d), and so must the rate fall (Joulani, György,
    Szepesvári: Online learning under delayed feedback, 2013).
    """
    return 1.0 / math.sqrt(1.0 + spec.delay_rows)


def _deviations(said: Said) -> Tensor:
    """Features of the stacking head (S, O, B, M + 1 + R): 1, members' deviations from the mixture, earlier errors."""
    away = (said.members.mean - said.mixture.mean[:, None]).permute(0, 3, 2, 1)
    one = torch.ones_like(away[..., :1])
    return torch.cat([one, away, said.errors.transpose(1, 2)], dim=-1)


def _learn_errors(errors: Tensor, error: Tensor, mask: Tensor) -> Tensor:
    """Running means (S, O, R) after the errors (S, B, O) of a batch, row by row."""
    count = mask.sum(1)
    later = (count[:, None] - mask.cumsum(1))[:, None]  # (S, 1, B) rows that count and follow this one
    values = torch.where(mask[..., None], error, 0.0).transpose(1, 2)  # (S, O, B)
    moved = []
    for at, rate in enumerate(ERROR_RATES):
        gained = (rate * (1 - rate) ** later * values).sum(-1)
        moved.append((1 - rate) ** count[:, None] * errors[..., at] + gained)
    return torch.stack(moved, dim=-1)


def _learn_reach(spec: ModelSpec, reach: Tensor, served: Predictive, y: Tensor, mask: Tensor) -> Tensor:
    """A step of each level's quantile towards its coverage."""
    away = ((y - served.mean).abs() / served.var.sqrt())[..., None]  # (S, B, O, 1)
    normal = reach.new_tensor(_NORMAL)
    level = reach.new_tensor(LEVELS)
    density = 2 * (-0.5 * normal.square()).exp() / math.sqrt(2 * math.pi)
    inside = (away < (normal * reach.exp())[:, None]).to(reach.dtype)
    missing = torch.where(mask[..., None, None], level - inside, 0.0).sum(1)  # (S, O, Q)
    step = REACH_RATE * learning_rate(spec) * missing / (density * normal).clamp_min(1 / 12)
    return (reach + step.clamp(-1.0, 1.0)).clamp(-REACH_MAX, REACH_MAX)


def _votes(live: Predictive, mixture: Predictive) -> Tensor:
    """(S, M + 1, B, C): members' log probabilities as deviations from the mixture's, then these; floored before."""
    middle = mixture.mean[:, None].clamp_min(POOL_FLOOR)
    return torch.cat([live.mean.clamp_min(POOL_FLOOR) - middle, middle], dim=1)


def _pooled(weights: Tensor, votes: Tensor) -> Tensor:
    return torch.log_softmax((weights[:, :, None, None] * votes).sum(1), dim=-1)


def _pool_prior(members: int) -> tuple[Tensor, Tensor]:
    """The mixture alone (M + 1,), and the covariance around it (M + 1, M + 1)."""
    start, variances = torch.zeros(members + 1), torch.full((members + 1,), POOL_VARIANCE)
    start[-1], variances[-1] = 1.0, POOL_MIXTURE_VARIANCE
    return start, torch.diag(variances)


def _learn_pool(spec: ModelSpec, state: Tensors, said: Said, y: Tensor, mask: Tensor) -> Tensors:
    """Newton steps, a few rows each, and reversion to the mixture alone.

    With V the votes of a row, p what was pooled and F = diag(p) − ppᵀ: P ← (I + P VFVᵀ)⁻¹P, w ← w + P V(1_y − p).
    """
    votes = _votes(said.members, said.mixture)
    w, P = state["combination.pool"], state["combination.pool_P"]
    start, prior = (value.to(w) for value in _pool_prior(w.shape[1] - 1))
    one, rate = torch.eye(w.shape[1], dtype=w.dtype, device=w.device), learning_rate(spec)
    tau = POOL_TAU_ROWS * math.sqrt(1 + spec.delay_rows)
    for first in range(0, mask.shape[1], POOL_CHUNK_ROWS):
        rows = slice(first, first + POOL_CHUNK_ROWS)
        part, there = votes[:, :, rows], mask[:, rows]
        p = _pooled(w, part).exp() * there[..., None]  # (S, b, C)
        chosen = torch.nn.functional.one_hot(y[:, rows], p.shape[-1]).to(p.dtype) * there[..., None]
        mean = (part * p[:, None]).sum(-1)  # (S, M + 1, b)
        spread = (part * p[:, None]).flatten(2) @ part.flatten(2).mT - mean @ mean.mT
        P = torch.linalg.solve(one + rate * P @ spread, P)
        P = 0.5 * (P + P.mT)
        slope = (part * (chosen - p)[:, None]).sum((-1, -2))
        w = w + rate * (P @ slope[..., None])[..., 0]
        keep = (0.5 * math.log1p(-1 / tau) * there.sum(1)).exp()[:, None]
        w, P = start + keep * (w - start), torch.lerp(prior, P, keep[..., None].square())
    any_row = mask.any(1)
    return {
        "combination.pool": torch.where(any_row[:, None], w, state["combination.pool"]),
        "combination.pool_P": torch.where(any_row[:, None, None], P, state["combination.pool_P"]),
    }
