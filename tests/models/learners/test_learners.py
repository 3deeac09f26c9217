"""Every learner passes the one examination, on regression and on classification."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from models.learners import LEARNERS
from models.types import TaskKind
from tests.checks.learners import CHECKS, INPUTS, Subject

OUTPUTS: Mapping[TaskKind, int] = {"regression": 2, "classification": 3}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "bayes_head": {"hidden": (16, 8)},
    "maml": {"hidden": (16, 16), "inner_lr": 0.05, "steps": 2, "per_step_rates": True},
    "meta_sgd": {"hidden": (16, 16), "inner_lr": 0.05},
}
"""Hyper-parameters that keep the examination short."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "bayes_head": {"hidden": (16, 8), "full_prior": True, "skip": False},
    "maml": {"hidden": (16, 16), "inner_lr": 0.05, "first_order": True},
}
"""Options that change a learner's equations pass it too."""


def test_every_learner_is_examined() -> None:
    """A new entry of the table gets its hyper-parameters here."""
    assert SMALL.keys() == LEARNERS.keys()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("task", OUTPUTS)
@pytest.mark.parametrize(("name", "given"), [*SMALL.items(), *VARIANTS.items()])
def test_learner_passes(name: str, given: Mapping[str, Any], task: TaskKind, check: Callable[[Subject], None]) -> None:
    """An entry of the table does what every learner does."""
    outputs = OUTPUTS[task]
    learner = LEARNERS[name](task=task, inputs=INPUTS, outputs=outputs, **given)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    check(Subject(learner, task == "classification", outputs, meta))
