"""Mixing the members of a committee: weights by recent likelihood with a fixed share, and what is served.

Members' distributions come as ``Predictive`` with the live members first and one challenger last. Weights are the
live members' log weights (S, M).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.losses import cross_entropy, gaussian_nll
from models.types import Predictive, TaskKind


def init_weights(streams: int, members: int, prior: Sequence[float] = ()) -> Tensor:
    """Log weights (S, M) before any row: the prior's, even where none is given for as many members."""
    if len(prior) != members:
        return torch.full((streams, members), -math.log(members))
    return torch.tensor(prior).log().expand(streams, -1).clone()


def update_weights(weights: Tensor, log_likelihood: Tensor, rows: Tensor, share: float) -> Tensor:
    """Bayes' rule, then a fixed share of the weight to everybody, so that the committee can change its mind.

    w ← (1-s)·w·p/Σ + s/M with 1-s = (1-share)^rows.

    Args:
        weights: (S, M) log weights.
        log_likelihood: (S, M) log-likelihood of the batch under each live member.
        rows: (S,) rows of the batch; a stream without rows keeps its weights.
        share: Fixed share per row.

    Reference:
        Herbster, Warmuth: Tracking the best expert, Machine Learning 1998.
    """
    members = weights.shape[1]
    if members == 1:
        return weights
    posterior = torch.softmax(weights + log_likelihood, dim=1)
    kept = ((1 - share) ** rows).to(weights.dtype)[:, None]
    mixed = (kept * posterior + (1 - kept) / members).log()
    return torch.where(rows[:, None] > 0, mixed, weights)


def serve(task: TaskKind, predictive: Predictive, weights: Tensor, challenger_share: float) -> Predictive:
    """(1-h₀)·live + h₀·challenger as one distribution.

    Returns:
        ``Predictive`` without the member axis: regression mean and variance (S, B, O) of the mixture, classification
        log probabilities (S, B, C).
    """
    return mixed(task, predictive, member_weights(weights, challenger_share))


def mixed(task: TaskKind, predictive: Predictive, weights: Tensor) -> Predictive:
    """The mixture of all members under log weights (S, M') that sum to one, as one distribution."""
    full = weights[:, :, None, None]
    if task == "classification":
        return Predictive(torch.logsumexp(predictive.mean + full, dim=1), predictive.var)
    w = full.exp()
    mean = (w * predictive.mean).sum(1)
    var = (w * (predictive.var + (predictive.mean - mean[:, None]).square())).sum(1)
    return Predictive(mean, var)


def blend(task: TaskKind, one: Predictive, other: Predictive, share: Tensor | None) -> Predictive:
    """(1 - share)·one + share·other as one distribution; both (S, B, ·), ``share`` (S,) in [0, 1), None for 0."""
    if share is None:
        return one
    weights = torch.stack([torch.log1p(-share), share.log()], dim=1)
    var = torch.stack([one.var, other.var], dim=1) if one.var.numel() else one.var
    return mixed(task, Predictive(torch.stack([one.mean, other.mean], dim=1), var), weights)


def blended_nll(one: Tensor, other: Tensor, share: Tensor | None) -> Tensor:
    """Negative log-likelihood (S, B) under ``blend``, given those under its two sides."""
    if share is None:
        return one
    return -torch.logaddexp(torch.log1p(-share)[:, None] - one, share.log()[:, None] - other)


def member_weights(weights: Tensor, challenger_share: float) -> Tensor:
    """Log weights (S, M + 1) of the live members and the challenger."""
    last = torch.full_like(weights[:, :1], math.log(challenger_share))
    return torch.cat([weights + math.log1p(-challenger_share), last], dim=1)


def row_nll(task: TaskKind, predictive: Predictive, weights: Tensor, challenger_share: float, y: Tensor) -> Tensor:
    """Negative log-likelihood of each row under the served mixture, in nats.

    Args:
        task: What ``predictive`` holds.
        predictive: All members, the challenger last.
        weights: (S, M) log weights of the live members.
        challenger_share: h₀.
        y: (S, B, O) targets in the learners' scale, or (S, B) class indices.

    Returns:
        (S, B).
    """
    return mixed_nll(task, predictive, member_weights(weights, challenger_share), y)


def mixed_nll(task: TaskKind, predictive: Predictive, weights: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood (S, B) of each row under all members' mixture by log weights (S, M')."""
    return -torch.logsumexp(weights[:, :, None] - member_nll(task, predictive, y), dim=1)


def member_nll(task: TaskKind, predictive: Predictive, y: Tensor) -> Tensor:
    """Negative log-likelihood (S, M', B) of each row under each member, in nats."""
    if task == "classification":
        return cross_entropy(predictive.mean, y[:, None].expand(predictive.mean.shape[:-1]))
    return gaussian_nll(predictive.mean, predictive.var, y[:, None])
