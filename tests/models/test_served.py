"""Every learner is trained, written, read, served, alarmed by a change and adapted anew."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from models import Batch, Engine, Episode, Feature, Feedback, Model, Target, meta_train, read_bundle, write_bundle
from models.answers import Outcome
from models.learners import LEARNERS
from models.plan import Plan
from models.trainer import DEFAULTS
from models.types import DetectorChoice, Expert, ModelSpec, TaskKind, Tensors
from tests.models.learners.test_learners import SMALL

CLASSES = ("red", "green", "blue")
TARGETS: dict[str, tuple[TaskKind, Target]] = {
    "numbers": ("regression", Target("y")),
    "open classes": ("classification", Target("y", ways=3)),
}
CASES = [(name, kind) for name in LEARNERS for kind, (task, _) in TARGETS.items() if task in LEARNERS[name].tasks]
BATCHES, ROWS = 16, 5
SENSITIVE = DetectorChoice("page_hinkley", {"threshold": 2.0, "delta": 0.2})
INNER_LR = {"anil": 0.3, "cavia": 0.9, "maml": 0.3, "meta_sgd": 0.3, "reptile": 0.09}
"""Larger than in the examination: here a start is trained on tasks that differ altogether."""


class Rows(NamedTuple):
    """A stream's inputs (rows, 2) and labels."""

    inputs: Any
    labels: list[Any]


def spec_of(name: str, kind: str) -> ModelSpec:
    """A model with one small expert and the kind of detector that training gives it, for a jump of a few rows."""
    task, target = TARGETS[kind]
    rate = {"inner_lr": INNER_LR[name]} if name in INNER_LR else {}
    expert = Expert(name, name, {**SMALL[name], "hidden": (16, 8), **rate})
    features = (Feature("a"), Feature("b"))
    usual = DEFAULTS[name][1]
    detector = SENSITIVE if usual.name == SENSITIVE.name else usual
    return ModelSpec(name, task, features, target, (expert,), detector=detector, standardiser_rows=0)


def world(tasks: int, generator: torch.Generator) -> torch.Tensor:
    """(T, 3, 2) directions: a number is x·w of the first, a class the one with the greatest x·w."""
    return torch.randn(tasks, 3, 2, generator=generator)


@cache
def trained(name: str, task: TaskKind) -> Tensors:
    """Tensors after a brief meta-training."""

    def episodes(generator: torch.Generator) -> Episode:
        x = torch.randn(16, 20, 2, generator=generator)
        scores = x @ world(16, generator).mT
        y = scores.argmax(-1) if task == "classification" else scores[..., :1]
        there = torch.ones(16, 20, dtype=torch.bool)
        cut = slice(10), slice(10, 20)
        return Episode(*(Batch(x[:, part], y[:, part], there[:, part]) for part in cut))

    kind = next(kind for kind, (one, _) in TARGETS.items() if one == task)
    (learner,) = Plan.of(spec_of(name, kind)).learners.values()
    generator = torch.Generator().manual_seed(0)
    return meta_train(learner, episodes, generator=generator, iterations=80, outer_lr=1e-2).meta


def stream(kind: str) -> tuple[Sequence[Rows], Sequence[Rows]]:
    """Batches of one world, and of its opposite: a jump."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.tensor([[1.3, -0.7], [-0.7, 1.3], [-1.0, -1.0]])
    parts = []
    for sign in (1.0, -1.0):
        batches = []
        for _ in range(BATCHES):
            x = torch.randn(ROWS, 2, generator=generator)
            scores = sign * x @ directions.mT
            labels = scores[:, 0].tolist() if kind == "numbers" else [CLASSES[k] for k in scores.argmax(1).tolist()]
            batches.append(Rows(x.double().numpy(), labels))
        parts.append(batches)
    return parts[0], parts[1]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_learner_is_served_and_adapts(name: str, kind: str) -> None:
    """It predicts a stream better than its frozen start, before a jump and after it; alarms come and re-adapt it."""
    spec = spec_of(name, kind)
    meta = {f"{name}.{key}": value for key, value in trained(name, spec.task).items()}
    engine = Engine(read_bundle(write_bundle(Model(spec, meta))))
    slot = engine.create()
    first, second = stream(kind)

    def learn(rows: Rows) -> Outcome:
        targets = engine.encode_targets(rows.labels, slot)
        tick = engine.step([Feedback(slot, rows.inputs, targets, labels=rows.labels)])
        engine.apply(tick)
        return tick.outcomes[0]

    def better(outcomes: Sequence[Outcome]) -> bool:
        own, start = (np.mean([getattr(each, of) for each in outcomes]) for of in ("score", "initial_score"))
        return bool(own > start + 0.1 if spec.task == "classification" else own < 0.9 * start)

    before = [learn(rows) for rows in first]
    assert better(before[BATCHES // 2 :])
    after = [learn(rows) for rows in second]
    alarms = [each for each in (*before, *after) if each.decision.kind == "drift"]
    assert alarms
    assert all(each.action == "readapt" and each.rows_used > 0 for each in alarms)
    assert better(after[BATCHES // 2 :])
    assert all(each.kept for each in (*before, *after))
    copy = engine.restore(engine.snapshot(slot))
    live, restored = (engine.predict([(at, first[0].inputs)])[0] for at in (slot, copy))
    assert restored.predictions == live.predictions
