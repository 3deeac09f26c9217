"""The one function that moves a stream: predict → score → detect → re-adapt on an alarm → learn.

A stream's state is a flat dict of tensors with a leading stream axis. ``step`` is pure: state and rows in, state and
what was observed out; no clock, no randomness, no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import committee, suspicion
from models.detectors import DETECTORS, Detector, Signals, Verdict, WeighsHypotheses
from models.errors import InputError
from models.features import init_standardiser, input_width, network_inputs, start_columns, update_standardiser
from models.learners import LEARNERS, KeepsPosteriors, Learner
from models.memory import Rows, init_memory, push_window, remember, window_batch
from models.start import start_answers
from models.types import Batch, Evidence, ModelSpec, Predictive, Tensors

SCORE_RATE = 0.01
"""Rate, per row, of the rolling loss and score."""
NEVER = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """A model's moving parts, built once from its spec: what ``step`` needs beside tensors."""

    spec: ModelSpec
    learners: Mapping[str, Learner]
    detector: Detector

    @classmethod
    def of(cls, spec: ModelSpec) -> "Plan":
        """Look up the spec's learners and detector in their tables.

        Raises:
            InputError: The detector weighs hypotheses, which the experts cannot be.
        """
        width = {False: input_width(spec) - start_columns(spec), True: input_width(spec)}
        learners: Mapping[str, Learner] = {
            expert.name: LEARNERS[expert.learner](
                task=spec.task, inputs=width[expert.on_start], outputs=spec.outputs, **expert.hyper_parameters
            )
            for expert in spec.experts
        }
        detector = DETECTORS[spec.detector.name](**spec.detector.settings)
        if isinstance(detector, WeighsHypotheses):
            learners = _hypotheses(spec, learners, detector.hypotheses)
        return cls(spec, learners, detector)

    @property
    def keeps_window(self) -> bool:
        """Whether a stream retains rows: not where every re-adaptation takes over a challenger."""
        if self.weighs_hypotheses:
            return False
        return not (self.detector.compares_challenger and all(one.keeps_challenger for one in self.learners.values()))

    @property
    def can_start_anew(self) -> bool:
        """Whether a fresh start is something else than the first expert's challenger."""
        return isinstance(next(iter(self.learners.values())), KeepsPosteriors)

    @property
    def weighs_hypotheses(self) -> bool:
        """Whether the detector's belief over the members is what is served."""
        return isinstance(self.detector, WeighsHypotheses)

    @property
    def members(self) -> int:
        """Live members of all experts together."""
        return sum(learner.members for learner in self.learners.values())


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


class Observation(NamedTuple):
    """What a batch showed, from the state before it.

    Attributes:
        served: (S, B, ·) predictive distribution as served.
        initial: (S, B, ·) the frozen initialization's.
        nll: (S, B) nats in the learners' scale, under ``served``'s mixture.
        initial_nll: (S, B) the same under the frozen initialization.
        members: What each member had predicted, the challenger last.
        evidence: (S, M) log-likelihood of the batch under each live member, heavy-tailed for regression.
        decisions: The detector's decisions.
        entered: (S,) bool, a warning that was not there before the batch.
        rows_used: (S,) rows that a re-adaptation used, 0 where there was none.
        kept: (S,) bool, false where a result was not finite and the state before was kept.
    """

    served: Predictive
    initial: Predictive
    nll: Tensor
    initial_nll: Tensor
    members: Predictive
    evidence: Tensor
    decisions: Decisions
    entered: Tensor
    rows_used: Tensor
    kept: Tensor


def init(plan: Plan, meta: Tensors, streams: int) -> Tensors:
    """State of ``streams`` new streams."""
    spec = plan.spec
    state: Tensors = {
        **init_standardiser(spec, streams),
        "weights": committee.init_weights(streams, plan.members),
        **suspicion.init_suspicion(streams),
        **init_memory(spec, streams, window_rows=spec.window_rows if plan.keeps_window else 0),
        "rows_seen": torch.zeros(streams, dtype=torch.int64),
        "drift_row": torch.full((streams,), NEVER, dtype=torch.int64),
        "warned": torch.zeros(streams, dtype=torch.bool),
        "rolling": torch.zeros(streams, 3),
    }
    for name, learner in plan.learners.items():
        state |= _prefixed(name, learner.init(_part(meta, name), streams))
    state |= {f"detector.{key}": torch.from_numpy(value) for key, value in plan.detector.init(streams).items()}
    return state


def predict(plan: Plan, meta: Tensors, state: Tensors, z: Tensor) -> tuple[Predictive, Predictive]:
    """What is served for rows z (S, B, D + L), and all members' distributions, the challenger last."""
    return _predict(plan, meta, state, z, start_answers(plan.spec, meta, z))


def _predict(
    plan: Plan, meta: Tensors, state: Tensors, z: Tensor, answers: Tensor | None
) -> tuple[Predictive, Predictive]:
    x = network_inputs(plan.spec, state["x_mean"], state["x_var"], z, answers)
    members = _members(plan, meta, state, x)
    weighed = members
    if suspicion.needs_fresh(state):
        weighed = suspicion.with_fresh(members, _fresh_start(plan, meta, state, x))
    return committee.mixed(plan.spec.task, weighed, suspicion.full_weights(plan.spec, state)), members


def initial_state(plan: Plan, meta: Tensors) -> Tensors:
    """What ``predict`` needs of a state, for one stream at the meta-initialization."""
    fresh = init_standardiser(plan.spec, 1)
    fresh |= {"weights": committee.init_weights(1, plan.members), **suspicion.init_suspicion(1)}
    for name, learner in plan.learners.items():
        fresh |= _prefixed(name, learner.init(_part(meta, name), 1))
    return fresh


def predict_initial(
    plan: Plan, meta: Tensors, z: Tensor, fresh: Tensors | None = None, answers: Tensor | None = None
) -> tuple[Predictive, Tensors, Predictive]:
    """The frozen initialization's answer: served distribution, the state it stands for, all members.

    Args:
        plan: The model's moving parts.
        meta: The model's learned tensors.
        z: (S, B, D + L) rows.
        fresh: ``initial_state``, where the caller keeps it.
        answers: (S, B, K) the frozen start's, where the caller has them.
    """
    if answers is None:
        answers = start_answers(plan.spec, meta, z)
    one = initial_state(plan, meta) if fresh is None else fresh
    joined = z.flatten(0, 1)[None]  # all rows are one stream's: the start is the same for all
    served, members = _predict(plan, meta, one, joined, None if answers is None else answers.flatten(0, 1)[None])
    streams, rows = z.shape[:2]
    weights = one["weights"].expand(streams, -1)
    return _unjoined(served, streams, rows), {**one, "weights": weights}, _unjoined(members, streams, rows)


def _unjoined(joined: Predictive, streams: int, rows: int) -> Predictive:
    """Back from (1, …, S·B, ·) to (S, …, B, ·)."""

    def apart(values: Tensor) -> Tensor:
        if not values.numel():
            return values
        return values[0].reshape(*values.shape[1:-2], streams, rows, values.shape[-1]).movedim(-3, 0)

    return Predictive(apart(joined.mean), apart(joined.var))


def step(
    plan: Plan,
    meta: Tensors,
    state: Tensors,
    rows: Rows,
    decisions: Decisions | None = None,
    fresh: Tensors | None = None,
) -> tuple[Tensors, Observation]:
    """Move S streams by one batch each.

    Args:
        plan: The model's moving parts.
        meta: The model's learned tensors.
        state: The streams' state; not modified.
        rows: The batch; ``rows.z`` holds the lag columns as they were when the rows were predicted. A stream with an
            empty mask keeps its state bit for bit.
        decisions: On replay the logged decisions, used instead of the detector's own.
        fresh: ``initial_state``, where the caller keeps it.

    Returns:
        The new state, and what was observed from the state before.
    """
    spec = plan.spec
    answers = start_answers(spec, meta, rows.z)
    x = network_inputs(spec, state["x_mean"], state["x_var"], rows.z, answers)
    y = rows.y if spec.task == "regression" else rows.y[..., 0].to(torch.int64)
    batch = Batch(x, y, rows.mask)
    count = rows.mask.sum(1)
    new = dict(state)
    new["window_rows"] = (state["window_rows"] + count).clamp_max(spec.window_rows)
    window = batch
    if plan.keeps_window:
        new["window_z"], new["window_y"] = push_window(spec, state, rows, count)
        window = window_batch(spec, meta, state, new)
    evidence = _learn(plan, meta, state, new, batch, window)
    full, weighed, start_over = suspicion.full_weights(spec, state), evidence.predictive, None
    if suspicion.needs_fresh(state):
        start_over = _learn_anew(plan, meta, state, next(iter(plan.learners)), batch)[1]
        weighed = suspicion.with_fresh(weighed, _fresh_start(plan, meta, state, x))  # bit for bit what is predicted
    served = committee.mixed(spec.task, weighed, full)
    nll = committee.mixed_nll(spec.task, weighed, full, y)
    initial, start, initial_members = predict_initial(plan, meta, rows.z, fresh, answers)
    initial_nll = committee.row_nll(spec.task, initial_members, start["weights"], spec.challenger_share, y)

    signals = _signals(plan, state, served, evidence, start_over, nll, y, rows.mask)
    detector_state = {
        key.removeprefix("detector."): value.numpy(force=True)
        for key, value in state.items()
        if key.startswith("detector.")
    }
    moved, verdict = plan.detector.update(detector_state, signals)
    new |= {f"detector.{key}": torch.from_numpy(np.asarray(value)) for key, value in moved.items()}
    if decisions is None:
        decisions = Decisions(
            verdict.drift,
            verdict.warning,
            verdict.rows_since_change,
            verdict.statistic,
            np.broadcast_to(np.float64(verdict.threshold), verdict.statistic.shape),
        )
    new["weights"] = committee.update_weights(state["weights"], evidence.robust[:, :-1], count, spec.share)
    new["rows_seen"] = state["rows_seen"] + count
    if verdict.restart is not None:
        _restart(plan, meta, state, new, torch.from_numpy(verdict.restart), batch)
    if verdict.belief is not None:
        rows_used = _succeed(plan, meta, new, decisions, verdict)
    else:
        rows_used = _readapt(plan, meta, new, decisions, torch.from_numpy(verdict.idle) & (count > 0))
    if verdict.suspicion is not None:
        suspected = verdict.suspicion * ~decisions.drift
        fresh_joint = None if start_over is None else start_over.joint
        _suspect(plan, state, new, full, evidence.joint, fresh_joint, torch.from_numpy(suspected), count)

    new["x_mean"], new["x_var"] = update_standardiser(spec, state["x_mean"], state["x_var"], rows.z, rows.mask)
    new |= remember(spec, state, y, rows.mask)
    drift = torch.from_numpy(decisions.drift)
    new["drift_row"] = torch.where(drift, new["rows_seen"], state["drift_row"])
    new["warned"] = torch.where(count > 0, torch.from_numpy(decisions.warning) & ~drift, state["warned"])
    kept = _all_finite(plan, new)
    if not bool(kept.all()):
        new = {key: _where(kept, value, state[key]) for key, value in new.items()}
    entered = new["warned"] & ~state["warned"]
    members, likely = evidence.predictive, evidence.robust[:, :-1]
    return new, Observation(served, initial, nll, initial_nll, members, likely, decisions, entered, rows_used, kept)


def reset(plan: Plan, meta: Tensors, state: Tensors) -> Tensors:
    """Back to the meta-initialization; counters and the known labels stay."""
    fresh = init(plan, meta, state["rows_seen"].shape[0])
    return fresh | {key: state[key] for key in ("known", "known_mean", "rows_seen", "changes", "rolling")}


def _members(plan: Plan, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
    """All live members' distributions, the first expert's challenger last."""
    return _joined(
        [
            learner.predict(_part(meta, name), _part(state, name), x[..., : learner.inputs])
            for name, learner in plan.learners.items()
        ]
    )


def _learn(plan: Plan, meta: Tensors, state: Tensors, new: Tensors, batch: Batch, window: Batch) -> Evidence:
    """Update every expert into ``new``; the evidence of all live members, the first expert's challenger last."""
    found = []
    for name, learner in plan.learners.items():
        rows, held = _seen_by(learner, batch), _seen_by(learner, window)
        moved, evidence = learner.update(_part(meta, name), _part(state, name), rows, held)
        new |= _prefixed(name, moved)
        found.append(evidence)
    if len(found) == 1:
        return found[0]
    return Evidence(
        _challenger_last([each.joint for each in found]),
        _challenger_last([each.robust for each in found]),
        _joined([each.predictive for each in found]),
    )


def _seen_by(learner: Learner, batch: Batch) -> Batch:
    """The batch with the inputs that the learner takes: the start's answer comes last."""
    return batch._replace(x=batch.x[..., : learner.inputs])


def _joined(parts: Sequence[Predictive]) -> Predictive:
    if len(parts) == 1:
        return parts[0]
    var = parts[0].var
    return Predictive(
        _challenger_last([part.mean for part in parts]),
        _challenger_last([part.var for part in parts]) if var.numel() else var,
    )


def _challenger_last(parts: Sequence[Tensor]) -> Tensor:
    """Join members of several experts (S, M, …): all live ones, then the first expert's challenger."""
    return torch.cat([*(part[:, :-1] for part in parts), parts[0][:, -1:]], dim=1)


def _hypotheses(spec: ModelSpec, learners: Mapping[str, Learner], count: int) -> Mapping[str, Learner]:
    """The one expert with a member for each hypothesis; its challenger is the fresh one."""
    able = {name: one.holding(count - 1) for name, one in learners.items() if isinstance(one, KeepsPosteriors)}
    if len(able) != 1 or len(learners) != 1:
        experts = ", ".join(f"{expert.name} ({expert.learner})" for expert in spec.experts)
        raise InputError(
            ("config", "detector"),
            f"{spec.detector.name} weighs posteriors of one expert that starts anew with any batch (a Bayesian head), "
            f"this model serves {experts}; choose another detector",
        )
    return able


def _anew(plan: Plan, meta: Tensors, state: Tensors, name: str) -> tuple[Learner, Tensors]:
    """An expert's start that no row has been learned from, at each stream's own noise."""
    learner = plan.learners[name]
    if not isinstance(learner, KeepsPosteriors):
        raise TypeError(f"expert {name} cannot start anew beside its challenger")
    return learner.anew(_part(meta, name), _part(state, name))


def _fresh_start(plan: Plan, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
    """The first expert's fresh start as one more member (S, 1, B, ·)."""
    name = next(iter(plan.learners))
    one, own = _anew(plan, meta, state, name)
    return one.predict(_part(meta, name), own, x[..., : one.inputs])


def _learn_anew(plan: Plan, meta: Tensors, state: Tensors, name: str, batch: Batch) -> tuple[Tensors, Evidence]:
    """What such a start is after the batch, and how well it had foreseen it: one member."""
    one, own = _anew(plan, meta, state, name)
    rows = _seen_by(one, batch)
    return one.update(_part(meta, name), own, rows, rows)


def _signals(
    plan: Plan,
    state: Tensors,
    served: Predictive,
    evidence: Evidence,
    start_over: Evidence | None,
    nll: Tensor,
    y: Tensor,
    mask: Tensor,
) -> Signals:
    spec = plan.spec
    if spec.task == "classification":
        error = (served.mean.argmax(-1) != y).to(nll.dtype)
    else:
        error = (served.mean - y).square().sum(-1)
    live = torch.logsumexp(state["weights"] + evidence.robust[:, :-1], dim=1)
    fresh = gain = None
    if start_over is not None:
        likelihood = torch.where(state["hazard"] > 0, start_over.robust[:, -1], -torch.inf)
        fresh = likelihood.to(torch.float64).numpy(force=True)
    if plan.detector.compares_challenger:
        gain = suspicion.rate_gain(spec, state).to(torch.float64).numpy(force=True)
    return Signals(
        error=error.to(torch.float64).numpy(force=True),
        nll=nll.to(torch.float64).numpy(force=True),
        mask=mask.numpy(force=True),
        live=live.to(torch.float64).numpy(force=True),
        challenger=evidence.robust[:, -1].to(torch.float64).numpy(force=True),
        fresh=fresh,
        gain=gain,
        members=evidence.joint.to(torch.float64).numpy(force=True),
    )


def _restart(plan: Plan, meta: Tensors, state: Tensors, new: Tensors, chosen: Tensor, batch: Batch) -> None:
    """In ``new``, challengers whose start was the wrong one become the initialization that has learned the batch."""
    if not bool(chosen.any()):
        return
    for name, learner in plan.learners.items():
        if isinstance(learner, KeepsPosteriors):
            grown, _ = _learn_anew(plan, meta, state, name, batch)
            new |= _prefixed(name, learner.restart(_part(new, name), chosen, grown))


def _suspect(
    plan: Plan,
    state: Tensors,
    new: Tensors,
    full: Tensor,
    joint: Tensor,
    fresh: Tensor | None,
    suspected: Tensor,
    count: Tensor,
) -> None:
    """Count in ``new`` how probable a change was, and set what share of the next answer the challenger gets."""
    changed = suspicion.change_probability(full, joint, fresh, state["hazard"])
    new["changes"] = torch.where(count > 0, state["changes"] + changed, state["changes"])
    new |= suspicion.suspect(plan.spec, state, new, suspected.to(changed.dtype), count)
    if not plan.can_start_anew:
        new["hazard"] = state["hazard"]


def _succeed(plan: Plan, meta: Tensors, new: Tensors, decisions: Decisions, verdict: Verdict) -> Tensor:
    """Make the belief what is served, and room for the next hypothesis. Returns rows of the new regime (S,)."""
    if verdict.belief is None or verdict.place is None:
        raise TypeError("a detector that weighs hypotheses gives its belief and the place of the newest one")
    place, idle = torch.from_numpy(verdict.place), torch.from_numpy(verdict.idle)
    for name, learner in plan.learners.items():
        if isinstance(learner, KeepsPosteriors):
            new |= _prefixed(name, learner.succeed(_part(meta, name), _part(new, name), place, idle))
    found = suspicion.from_belief(plan.spec, torch.from_numpy(verdict.belief))
    for name, value in found.items():
        kept = idle.view(-1, *[1] * (value.dim() - 1))
        new[name] = torch.where(kept, value.to(new[name].dtype), new[name])
    since = torch.from_numpy(decisions.rows_since_change).clamp_min(0)
    return torch.where(torch.from_numpy(decisions.drift), since, 0)


def _readapt(plan: Plan, meta: Tensors, new: Tensors, decisions: Decisions, idle: Tensor) -> Tensor:
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
        even = torch.full_like(new["weights"], -float(np.log(plan.members)))
        new["weights"] = torch.where(alarm[:, None], even, new["weights"])
        if plan.detector.compares_challenger:
            used = torch.where(alarm, known, 0)
    elif not bool(idle.any()):
        return used
    for name, learner in plan.learners.items():
        takeover = learner.keeps_challenger and plan.detector.compares_challenger
        rows = None if takeover or since is None else _seen_by(learner, since)
        moved = learner.reset(_part(meta, name), _part(new, name), alarm, idle, rows)
        new |= _prefixed(name, moved)
    return used


def _all_finite(plan: Plan, new: Tensors) -> Tensor:
    """(S,) whether what learning changed is finite: a sum is not where a part is not."""
    changed = [key for key in new if key.split(".", 1)[0] in plan.learners]
    changed += ["weights", "odds", "changes", "x_mean", "x_var"]
    streams = new["rows_seen"].shape[0]
    sums = [new[key].reshape(streams, -1).sum(1) for key in changed if new[key].is_floating_point()]
    return torch.stack(sums).isfinite().all(0)


def _where(kept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(kept.view(-1, *[1] * (new.dim() - 1)), new, old)


def _part(tensors: Tensors, name: str) -> Tensors:
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _prefixed(name: str, tensors: Tensors) -> Tensors:
    return {f"{name}.{key}": value for key, value in tensors.items()}
