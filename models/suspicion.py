"""How much of what is served is the challenger's and a fresh start's: the odds that the stream has just changed.

A stream's state holds ``odds`` (S,), the log-odds of the challenger against the live members, relative to the model's
``challenger_share``; ``hazard`` (S,), the share of a start that no row has been learned from, 0 where the challenger is
just that; and ``changes`` (S,), the expected number of changes so far. The rate of changes is the mean of a Beta
posterior: the model's share counts for ``PRIOR_ROWS`` rows, then the stream's own record does.
"""

import math

import torch
from torch import Tensor

from models import committee
from models.types import ModelSpec, Predictive, Tensors

PRIOR_ROWS = 10.0
"""Rows that the model's share counts for, against what the stream's own rows say about its rate of changes."""
RATE_MAX = 0.5
COLD_ROWS = 50
"""Rows of a stream after which the frozen start's answer has no share."""
SUSPICION_MAX = 50.0
"""Nats of suspicion that count; more makes no difference that a float32 could show."""


def init_suspicion(streams: int) -> Tensors:
    """Nothing suspected: the model's share for the challenger, which is a fresh start itself."""
    return {name: torch.zeros(streams) for name in ("odds", "hazard", "changes")}


def full_weights(spec: ModelSpec, state: Tensors) -> Tensor:
    """Log weights (S, M + 1) of live members and challenger; with (S, M + 2) the last is a fresh start's.

    The latter where some stream's challenger is not a fresh start.
    """
    h0, odds = spec.challenger_share, state["odds"][:, None]
    plain = committee.member_weights(state["weights"], h0)
    shift = (h0 * odds.expm1()).log1p()
    full = torch.cat([plain[:, :-1] - shift, plain[:, -1:] + odds - shift], dim=1)
    if not needs_fresh(state):
        return full
    hazard = state["hazard"][:, None]
    return torch.cat([full + torch.log1p(-hazard), hazard.log()], dim=1)


def cold_share(spec: ModelSpec, state: Tensors) -> Tensor | None:
    """(S,) share of the frozen start's answer that is served to streams in their first rows; None where it is nothing.

    What few rows teach may mislead, and the frozen start is what was learned from many streams.
    """
    rows = state["rows_seen"]
    cold = (rows > 0) & (rows < COLD_ROWS)
    if not spec.cold_share or not bool(cold.any()):
        return None
    return torch.where(cold, spec.cold_share * 2 / (1 + rows), 0.0)


def needs_fresh(state: Tensors) -> bool:
    """Whether some stream's challenger has learned rows already."""
    return bool((state["hazard"] > 0).any())


def with_fresh(members: Predictive, fresh: Predictive) -> Predictive:
    """Members and one more, (S, M + 2, B, ·)."""
    var = torch.cat([members.var, fresh.var], dim=1) if members.var.numel() else members.var
    return Predictive(torch.cat([members.mean, fresh.mean], dim=1), var)


def change_rate(spec: ModelSpec, state: Tensors) -> Tensor:
    """(S,) expected rate of changes, per row."""
    changes = PRIOR_ROWS * spec.challenger_share + state["changes"]
    return (changes / (PRIOR_ROWS + state["rows_seen"])).clamp_max(RATE_MAX)


def rate_gain(spec: ModelSpec, state: Tensors) -> Tensor:
    """(S,) nats by which a stream's own record raises the odds of a change above the model's; never below zero."""
    return (torch.logit(change_rate(spec, state)) - _logit(spec.challenger_share)).clamp_min(0.0)


def change_probability(full: Tensor, joint: Tensor, fresh: Tensor | None, hazard: Tensor) -> Tensor:
    """(S,) probability that a change came just before the batch, given the batch.

    Args:
        full: What ``full_weights`` gave for the batch.
        joint: (S, M + 1) log-likelihood of the batch under live members and challenger.
        fresh: (S, 1) the same under a fresh start, where ``full`` has one.
        hazard: (S,) as in the state before the batch.
    """
    if fresh is None:
        return torch.softmax(full + joint, dim=1)[:, -1]
    posterior = torch.softmax(full + torch.cat([joint, fresh], dim=1), dim=1)
    return torch.where(hazard > 0, posterior[:, -1], posterior[:, -2])


def suspect(spec: ModelSpec, state: Tensors, new: Tensors, suspicion: Tensor, rows: Tensor) -> Tensors:
    """The odds and the hazard for the next batch, taken to be as long as this one.

    Args:
        spec: The model.
        state: Before the batch.
        new: After it, with ``changes`` and ``rows_seen``.
        suspicion: (S,) nats in favour of the challenger, 0 where it starts anew.
        rows: (S,) rows of the batch; a stream without keeps its own.
    """
    none = torch.log1p(-change_rate(spec, new)) * rows  # log probability that no change comes
    share = -none.expm1()
    odds = share.log() - none - _logit(spec.challenger_share) + suspicion.clamp_max(SUSPICION_MAX)
    hazard = torch.where(suspicion > 0, share, 0.0)
    return {
        "odds": torch.where(rows > 0, odds, state["odds"]),
        "hazard": torch.where(rows > 0, hazard, state["hazard"]),
    }


def from_belief(spec: ModelSpec, belief: Tensor) -> Tensors:
    """``weights`` and ``odds`` of a belief (S, M + 1) over all members, of which the challenger is a fresh start."""
    live = torch.logsumexp(belief[:, :-1], dim=1)
    return {
        "weights": belief[:, :-1] - live[:, None],
        "odds": belief[:, -1] - live - _logit(spec.challenger_share),
    }


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)
