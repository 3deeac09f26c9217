"""All experts of a committee as one: their members joined, and each one's own part of a flat dict of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.committee import member_nll
from models.learners import Learner
from models.losses import masked_sum
from models.plan import Plan
from models.types import Batch, Evidence, ModelSpec, Predictive, Tensors


def members_of(plan: Plan, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
    """All live members' distributions, the first expert's challenger last."""
    return _joined(
        [
            learner.predict(part(meta, name), part(state, name), x[..., : learner.inputs])
            for name, learner in plan.learners.items()
        ]
    )


def learn_all(plan: Plan, meta: Tensors, state: Tensors, new: Tensors, batch: Batch, window: Batch) -> Evidence:
    """Update every expert into ``new``; the evidence of all live members, the first expert's challenger last."""
    found = []
    for name, learner in plan.learners.items():
        rows, held = seen_by(learner, batch), seen_by(learner, window)
        moved, evidence = learner.update(part(meta, name), part(state, name), rows, held)
        new |= prefixed(name, moved)
        found.append(evidence)
    if len(found) == 1:
        return found[0]
    return Evidence(
        _challenger_last([each.joint for each in found]),
        _challenger_last([each.robust for each in found]),
        _joined([each.predictive for each in found]),
    )


def of_rows(spec: ModelSpec, evidence: Evidence, y: Tensor, heard: Tensor) -> Evidence:
    """Where classes are open, the evidence of the rows (S, B) that are heard, each on its own; else as it is."""
    if not spec.target.ways:
        return evidence
    joint = -masked_sum(member_nll("classification", evidence.predictive, y), heard[:, None])
    return Evidence(joint, joint, evidence.predictive)


def foresee(plan: Plan, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
    """The first expert's start that no row was learned from, as one more member (S, 1, B, ·)."""
    name = next(iter(plan.learners))
    learner = plan.posteriors[name]
    return learner.foresee(part(meta, name), part(state, name), x[..., : learner.inputs])


def foreseen(plan: Plan, meta: Tensors, state: Tensors, batch: Batch) -> Evidence:
    """How well that start has foreseen a batch."""
    name = next(iter(plan.learners))
    learner = plan.posteriors[name]
    return learner.foreseen(part(meta, name), part(state, name), seen_by(learner, batch))


def seen_by(learner: Learner, batch: Batch) -> Batch:
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


def part(tensors: Tensors, name: str) -> Tensors:
    """One expert's own tensors of a flat dict, under the names that its learner knows."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def prefixed(name: str, tensors: Tensors) -> Tensors:
    """The inverse of ``part``."""
    return {f"{name}.{key}": value for key, value in tensors.items()}
