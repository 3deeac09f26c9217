"""The one function that moves a stream: predict → score → detect → re-adapt on an alarm → learn.

A stream's state is a flat dict of tensors with a leading stream axis. ``step`` is pure: state and rows in, state and
what was observed out; no clock, no randomness, no files.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models import combination, committee, reference, reverting, suspicion
from models.combination import Said
from models.experts import foresee, foreseen, learn_all, members_of, of_rows, part, prefixed
from models.features import init_standardiser, network_inputs, update_standardiser
from models.losses import cross_entropy
from models.memory import Rows, init_memory, push_window, remember, window_batch
from models.plan import Plan
from models.readaptation import Decisions, detect, marks, readapt, restart, signals_of, succeed, suspect
from models.start import start_answers
from models.types import Batch, ModelSpec, Predictive, Tensors
from models.virtual_drift import init_watch, watched_columns
from models.vocabulary import init_vocabulary

SCORE_RATE = 0.01
"""Rate, per row, of the rolling loss and score."""
NEVER = -1
STAYING = ("known", "known_mean", "rows_seen", "changes", "rolling", "inputs", "inputs_warned", "named", "vocabulary")
"""What a reset leaves as it is."""
UNASKED = (
    *("changes", "reference", "drift_row", "warned", "rolling", "inputs", "inputs_warned"),
    *("window_rows", "window_z", "window_y"),
)
"""What ``predict`` does not look at, nor at what the detector keeps."""


class Observation(NamedTuple):
    """What a batch showed, from the state before it.

    Attributes:
        served: (S, B, ·) predictive distribution as served.
        initial: (S, B, ·) the frozen initialization's.
        nll: (S, B) nats in the learners' scale, under ``served``'s mixture.
        initial_nll: (S, B) the same under the frozen initialization.
        said: What the members say of the rows.
        decisions: The detector's decisions.
        entered: (S,) bool, a warning that was not there before the batch.
        rows_used: (S,) rows that a re-adaptation used, 0 where there was none.
        kept: (S,) bool, false where a result was not finite and the state before was kept.
    """

    served: Predictive
    initial: Predictive
    nll: Tensor
    initial_nll: Tensor
    said: Said
    decisions: Decisions
    entered: Tensor
    rows_used: Tensor
    kept: Tensor


def asked(key: str) -> bool:
    """Whether ``predict`` looks at an entry of a state."""
    return key not in UNASKED and not key.startswith("detector.")


def init(plan: Plan, meta: Tensors, streams: int) -> Tensors:
    """State of ``streams`` new streams."""
    spec = plan.spec
    state: Tensors = {
        **init_standardiser(spec, streams),
        "weights": committee.init_weights(streams, plan.members, spec.weights),
        **suspicion.init_suspicion(streams),
        "reference": reference.init_reference(committee.init_weights(streams, plan.members, spec.weights)),
        **combination.init_combination(spec, streams, plan.members),
        **init_memory(spec, streams, window_rows=spec.window_rows if plan.keeps_window else 0),
        **_init_names(spec, streams),
        "rows_seen": torch.zeros(streams, dtype=torch.int64),
        "drift_row": torch.full((streams,), NEVER, dtype=torch.int64),
        "warned": torch.zeros(streams, dtype=torch.bool),
        "rolling": torch.zeros(streams, 3),
        reverting.KEY: torch.zeros(streams, reverting.WIDTH),
        "inputs": torch.from_numpy(init_watch(streams, len(watched_columns(spec.features)))).float(),
        "inputs_warned": torch.zeros(streams, dtype=torch.int64),
    }
    for name, learner in plan.learners.items():
        state |= prefixed(name, learner.init(part(meta, name), streams))
    state |= {f"detector.{key}": torch.from_numpy(value) for key, value in plan.detector.init(streams).items()}
    return state


def _init_names(spec: ModelSpec, streams: int) -> Tensors:
    """Where classes are open: how many slots have labels (S,), and which (the engine's, who alone knows labels)."""
    if not spec.target.ways:
        return {}
    return {
        "named": torch.zeros(streams, dtype=torch.int64),
        "vocabulary": init_vocabulary(streams, spec.target.ways),
    }


def predict(plan: Plan, meta: Tensors, state: Tensors, z: Tensor, fresh: Tensors | None = None) -> Said:
    """What is served for rows z (S, B, D + L), with all that their labels need later; ``fresh`` as in ``step``."""
    answers = start_answers(plan.spec, meta, z)
    mixture, members = _mixture(plan, meta, state, z, answers)
    cold = suspicion.cold_share(plan.spec, state)
    if cold is not None:
        initial, _, _ = predict_initial(plan, meta, z, fresh, answers)
        mixture = committee.blend(plan.spec.task, mixture, initial, cold)
    return combination.say(plan.spec, state, _live(members), mixture)


def _mixture(
    plan: Plan, meta: Tensors, state: Tensors, z: Tensor, answers: Tensor | None
) -> tuple[Predictive, Predictive]:
    """All members mixed, and each alone, the challenger last."""
    x = network_inputs(plan.spec, state["x_mean"], state["x_var"], z, answers)
    members = members_of(plan, meta, state, x)
    weighed = members
    if suspicion.needs_fresh(state):
        weighed = suspicion.with_fresh(members, foresee(plan, meta, state, x))
    return committee.mixed(plan.spec.task, weighed, suspicion.full_weights(plan.spec, state)), members


def _live(members: Predictive) -> Predictive:
    """Without the challenger."""
    return Predictive(members.mean[:, :-1], members.var[:, :-1] if members.var.numel() else members.var)


def initial_state(plan: Plan, meta: Tensors) -> Tensors:
    """What ``predict`` needs of a state, for one stream at the meta-initialization."""
    fresh = init_standardiser(plan.spec, 1)
    fresh |= {"weights": committee.init_weights(1, plan.members, plan.spec.weights), **suspicion.init_suspicion(1)}
    for name, learner in plan.learners.items():
        fresh |= prefixed(name, learner.init(part(meta, name), 1))
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
    served, members = _mixture(plan, meta, one, joined, None if answers is None else answers.flatten(0, 1)[None])
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
    said: Tensor | None = None,
) -> tuple[Tensors, Observation]:
    """Move S streams by one batch each.

    Where classes are open, rows whose label comes for the first time are learned, but neither the detector nor the
    members' weights hear of them: a new class is no change of the old ones, and nobody could foresee it.

    Args:
        plan: The model's moving parts.
        meta: The model's learned tensors.
        state: The streams' state; not modified.
        rows: The batch; ``rows.z`` holds the lag columns as they were when the rows were predicted. A stream with an
            empty mask keeps its state bit for bit.
        decisions: On replay the logged decisions, used instead of the detector's own.
        fresh: ``initial_state``, where the caller keeps it.
        said: (S, B, K) ``combination.pack`` of what had been said of the rows, where their labels came late; NaN, or
            None, for rows that are learned as soon as they are predicted.

    Returns:
        The new state, and what was observed from the state before.
    """
    spec, count = plan.spec, rows.mask.sum(1)
    answers = start_answers(spec, meta, rows.z)
    x = network_inputs(spec, state["x_mean"], state["x_var"], rows.z, answers)
    y = rows.y if spec.task == "regression" else rows.y[..., 0].to(torch.int64)
    batch = Batch(x, y, rows.mask)
    new = dict(state)
    new["window_rows"] = (state["window_rows"] + count).clamp_max(spec.window_rows)
    window = batch
    if plan.keeps_window:
        new["window_z"], new["window_y"] = push_window(spec, state, rows, count)
        window = window_batch(spec, meta, state, new)
    heard, told = _heard(spec, state, new, y, rows.mask)
    evidence = of_rows(spec, learn_all(plan, meta, state, new, batch, window), y, heard)
    full, weighed, start_over = suspicion.full_weights(spec, state), evidence.predictive, None
    if suspicion.needs_fresh(state):
        start_over = of_rows(spec, foreseen(plan, meta, state, batch), y, heard)
        weighed = suspicion.with_fresh(weighed, start_over.predictive)
    cold = suspicion.cold_share(spec, state)
    initial, start, initial_members = predict_initial(plan, meta, rows.z, fresh, answers)
    mixture = committee.blend(spec.task, committee.mixed(spec.task, weighed, full), initial, cold)
    now = combination.say(spec, state, _live(evidence.predictive), mixture)
    served = now.served
    initial_nll = committee.row_nll(spec.task, initial_members, start["weights"], spec.challenger_share, y)
    if spec.task == "classification":
        nll = cross_entropy(served.mean, y)
    else:  # the correction moves all members alike
        nll = committee.mixed_nll(spec.task, weighed, full, y - (served.mean - mixture.mean))
        nll = committee.blended_nll(nll, initial_nll, cold)
    then = now if said is None else combination.earlier(spec, now, said)
    signals = signals_of(plan, state, served, evidence, start_over, nll, y, heard)
    verdict, decisions = detect(plan, state, new, signals, decisions)
    new |= combination.learn(spec, state, then, y, heard)
    new["rows_seen"] = state["rows_seen"] + count
    if verdict.restart is not None:
        restart(plan, meta, state, new, torch.from_numpy(verdict.restart), batch)
    if verdict.belief is not None:
        rows_used = succeed(plan, meta, new, decisions, verdict)
    else:
        rows_used = readapt(plan, meta, new, decisions, torch.from_numpy(verdict.idle) & (told > 0))
    suspect(plan, state, new, full, evidence, start_over, verdict, decisions, told)

    new["x_mean"], new["x_var"] = update_standardiser(spec, state["x_mean"], state["x_var"], rows.z, rows.mask)
    new |= remember(spec, state, y, rows.mask)
    new |= marks(state, new, decisions, told)
    kept = _all_finite(plan, new)
    if not bool(kept.all()):
        new = {key: _where(kept, value, state[key]) for key, value in new.items()}
    entered = new["warned"] & ~state["warned"]
    return new, Observation(served, initial, nll, initial_nll, now, decisions, entered, rows_used, kept)


def reset(plan: Plan, meta: Tensors, state: Tensors) -> Tensors:
    """Back to the meta-initialization; what STAYING names stays: counters, known labels and names, known inputs."""
    fresh = init(plan, meta, state["rows_seen"].shape[0])
    return fresh | {key: state[key] for key in STAYING if key in state}


def _heard(spec: ModelSpec, state: Tensors, new: Tensors, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (S, B) whose label had a slot before, and how many (S,); all, where classes are fixed.

    ``new`` is told how many slots have labels now.
    """
    if spec.target.ways:
        named = state["named"][:, None]
        new["named"] = torch.cat([named, torch.where(mask, y + 1, 0)], dim=1).amax(1)
        mask = mask & (y < named)
    return mask, mask.sum(1)


def _all_finite(plan: Plan, new: Tensors) -> Tensor:
    """(S,) whether what learning changed is finite: a sum is not where a part is not."""
    changed = [key for key in new if key.split(".", 1)[0] in plan.learners]
    changed += [key for key in new if key.startswith("combination.")]
    changed += ["weights", "odds", "changes", "x_mean", "x_var"]
    streams = new["rows_seen"].shape[0]
    sums = [new[key].reshape(streams, -1).sum(1) for key in changed if new[key].is_floating_point()]
    return torch.stack(sums).isfinite().all(0)


def _where(kept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(kept.view(-1, *[1] * (new.dim() - 1)), new, old)
