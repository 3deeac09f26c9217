"""What a detector hears, what it decides, and what an alarm does to the experts.

The functions that take ``new`` write into the state that a step is making.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import combination, reference, suspicion
from models.detectors import Signals, Verdict
from models.experts import part, prefixed, seen_by
from models.memory import window_batch
from models.plan import Plan
from models.types import Batch, Evidence, Predictive, Tensors


class Decisions(NamedTuple):
    """What the detector decided, one entry a stream; logged, and given back to ``step`` on replay.

    Attributes:
        drift: (S,) bool.
        warning: (S,) bool.
        rows_since_change: (S,) int64 rows since the estimated change, the batch included; -1 without an estimate.
        statistic: (S,) float64.
        threshold: (S,) float64.
    """

    drift: np.ndarray
    warning: np.ndarray
    rows_since_change: np.ndarray
    statistic: np.ndarray
    threshold: np.ndarray


def signals_of(
    plan: Plan,
    state: Tensors,
    served: Predictive,
    evidence: Evidence,
    start_over: Evidence | None,
    nll: Tensor,
    y: Tensor,
    mask: Tensor,
) -> Signals:
    """How well a batch was predicted; ``start_over`` is the evidence of a start that no row was learned from.

    What a test weighs counts at the rate at which late labels teach: the labels that come between a decision and its
    own label show one surprise, not as many.
    """
    spec, rate = plan.spec, combination.learning_rate(plan.spec)
    if spec.task == "classification":
        error = (served.mean.argmax(-1) != y).to(nll.dtype)
    else:
        error = (served.mean - y).square().sum(-1)
    live = reference.log_likelihood(state["reference"], rate * evidence.robust[:, :-1])
    fresh = gain = None
    if start_over is not None:
        likelihood = torch.where(state["hazard"] > 0, rate * start_over.robust[:, -1], -torch.inf)
        fresh = likelihood.to(torch.float64).numpy(force=True)
    if plan.detector.compares_challenger:
        gain = suspicion.rate_gain(spec, state).to(torch.float64).numpy(force=True)
    return Signals(
        error=error.to(torch.float64).numpy(force=True),
        nll=nll.to(torch.float64).numpy(force=True),
        mask=mask.numpy(force=True),
        live=live.to(torch.float64).numpy(force=True),
        challenger=(rate * evidence.robust[:, -1]).to(torch.float64).numpy(force=True),
        fresh=fresh,
        gain=gain,
        members=evidence.joint.to(torch.float64).numpy(force=True),
    )


def detect(
    plan: Plan, state: Tensors, new: Tensors, signals: Signals, given: Decisions | None
) -> tuple[Verdict, Decisions]:
    """Move the detector into ``new``; what it finds, and what is decided: the same, unless a log says otherwise."""
    before = {
        key.removeprefix("detector."): value.numpy(force=True)
        for key, value in state.items()
        if key.startswith("detector.")
    }
    moved, verdict = plan.detector.update(before, signals)
    new |= {f"detector.{key}": torch.from_numpy(np.asarray(value)) for key, value in moved.items()}
    if given is not None:
        return verdict, given
    threshold = np.broadcast_to(np.float64(verdict.threshold), verdict.statistic.shape)
    found = (verdict.drift, verdict.warning, verdict.rows_since_change, verdict.statistic, threshold)
    return verdict, Decisions(*found)


def restart(plan: Plan, meta: Tensors, state: Tensors, new: Tensors, chosen: Tensor, batch: Batch) -> None:
    """In ``new``, challengers whose start was the wrong one become the initialization that has learned the batch."""
    if not bool(chosen.any()):
        return
    for name, learner in plan.posteriors.items():
        rows = seen_by(learner, batch)
        moved = learner.restart(part(meta, name), part(new, name), chosen, part(state, name), rows)
        new |= prefixed(name, moved)


def suspect(
    plan: Plan,
    state: Tensors,
    new: Tensors,
    full: Tensor,
    evidence: Evidence,
    start_over: Evidence | None,
    verdict: Verdict,
    decisions: Decisions,
    count: Tensor,
) -> None:
    """Count in ``new`` how probable a change was, set the challenger's share of the next answer, and its reference.

    Only where the detector weighs the challenger.
    """
    if verdict.suspicion is None:
        return
    likely, idle = combination.learning_rate(plan.spec) * evidence.robust[:, :-1], torch.from_numpy(verdict.idle)
    torn = _raised(plan, new).any(1)
    new["reference"] = reference.advance(state["reference"], likely, new["weights"], idle, count, torn)
    suspected = torch.from_numpy(verdict.suspicion * ~decisions.drift)
    fresh = None if start_over is None else start_over.joint
    changed = suspicion.change_probability(full, evidence.joint, fresh, state["hazard"])
    new["changes"] = torch.where(count > 0, state["changes"] + changed, state["changes"])
    new |= suspicion.suspect(plan.spec, state, new, suspected.to(changed.dtype), count)
    if not plan.can_start_anew:
        new["hazard"] = state["hazard"]


def succeed(plan: Plan, meta: Tensors, new: Tensors, decisions: Decisions, verdict: Verdict) -> Tensor:
    """Make the belief what is served, and room for the next hypothesis. Returns rows of the new regime (S,)."""
    if verdict.belief is None or verdict.place is None:
        raise TypeError("a detector that weighs hypotheses gives its belief and the place of the newest one")
    place, idle = torch.from_numpy(verdict.place), torch.from_numpy(verdict.idle)
    for name, learner in plan.posteriors.items():
        new |= prefixed(name, learner.succeed(part(meta, name), part(new, name), place, idle))
    found = suspicion.from_belief(plan.spec, torch.from_numpy(verdict.belief))
    for name, value in found.items():
        kept = idle.view(-1, *[1] * (value.dim() - 1))
        new[name] = torch.where(kept, value.to(new[name].dtype), new[name])
    since = torch.from_numpy(decisions.rows_since_change).clamp_min(0)
    return torch.where(torch.from_numpy(decisions.drift), since, 0)


def readapt(plan: Plan, meta: Tensors, new: Tensors, decisions: Decisions, idle: Tensor) -> Tensor:
    """Act on the decisions in ``new``: re-adapt alarmed streams, restart idle challengers. Returns rows used (S,)."""
    spec = plan.spec
    alarm = torch.from_numpy(decisions.drift)
    used = torch.zeros_like(new["window_rows"])
    since = None
    estimate = torch.from_numpy(decisions.rows_since_change)
    if bool(alarm.any()):
        known = torch.where(estimate > 0, estimate, spec.min_rows)
        used = torch.where(alarm, torch.minimum(known, new["window_rows"]), 0)
        new["window_rows"] = torch.where(alarm, used, new["window_rows"])
        since = window_batch(spec, meta, new, new) if plan.keeps_window else None
        if plan.detector.compares_challenger:
            used = torch.where(alarm, known, 0)
    elif not bool(idle.any()):
        return used
    for name, learner in plan.learners.items():
        takeover = learner.keeps_challenger and plan.detector.compares_challenger
        rows = None if takeover or since is None else seen_by(learner, since)
        moved = learner.reset(part(meta, name), part(new, name), alarm, idle, rows)
        new |= prefixed(name, moved)
    new["weights"] = torch.where(alarm[:, None], _weights_anew(plan, new), new["weights"])
    return used


def _weights_anew(plan: Plan, new: Tensors) -> Tensor:
    """(S, M) log weights of the live members after an alarm: more for those that go on from a remembered regime."""
    anew = torch.tensor(plan.after_alarm, device=new["weights"].device).log()
    return torch.log_softmax(anew + _raised(plan, new), dim=1)


def _raised(plan: Plan, new: Tensors) -> Tensor:
    """(S, M) nats that members have been raised by because their young regime looks like a remembered one."""
    raised = [
        learner.trust(part(new, name))
        if (learner := plan.posteriors.get(name)) is not None
        else new["weights"].new_zeros(len(new["weights"]), other.members)
        for name, other in plan.learners.items()
    ]
    return torch.cat(raised, dim=1)


def marks(state: Tensors, new: Tensors, decisions: Decisions, count: Tensor) -> Tensors:
    """When the last alarm was, and whether the stream is warned now."""
    drift, warning = torch.from_numpy(decisions.drift), torch.from_numpy(decisions.warning)
    return {
        "drift_row": torch.where(drift, new["rows_seen"], state["drift_row"]),
        "warned": torch.where(count > 0, warning & ~drift, state["warned"]),
    }
