"""Every learner passes the one examination, on regression and on classification."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
import torch

from models.errors import InputError
from models.learners import LEARNERS
from models.types import TaskKind
from tests.checks.learners import CHECKS, INPUTS, Subject, check_adaptation_helps

OUTPUTS: Mapping[TaskKind, int] = {"regression": 2, "classification": 3}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "anil": {"hidden": (16, 16), "inner_lr": 0.1, "steps": 2},
    "bayes_head": {"hidden": (16, 8)},
    "cavia": {"hidden": (16, 16), "inner_lr": 0.5, "steps": 2, "context": 3},
    "class_posterior": {"hidden": (16, 8)},
    "maml": {"hidden": (16, 16), "inner_lr": 0.05, "steps": 2, "per_step_rates": True},
    "matchingnet": {"hidden": (16, 8), "memory_rows": 16},
    "meta_sgd": {"hidden": (16, 16), "inner_lr": 0.05},
    "protonet": {"hidden": (16, 8)},
    "reptile": {"hidden": (16, 16), "inner_lr": 0.1},
}
"""Hyper-parameters that keep the examination short."""
VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("anil", {"hidden": (16, 16), "inner_lr": 0.1, "steps": 2, "per_step_rates": True}),
    ("bayes_head", {"hidden": (16, 8), "full_prior": True, "skip": False}),
    ("bayes_head", {"hidden": (16, 8), "quadratic": 2, "tau_rows": (100.0, 500.0), "prior_scales": (1.0, 30.0)}),
    ("bayes_head", {"hidden": (16, 8), "noise": "unknown"}),
    ("bayes_head", {"hidden": (16, 8), "tau_rows": (50.0, 100.0, 500.0), "archive_segments": 2}),
    ("bayes_head", {"hidden": (), "random_features": 24, "tau_rows": (100.0, 500.0), "prior_scales": (1.0, 30.0)}),
    ("cavia", {"hidden": (16, 16), "inner_lr": 0.5, "context": 3, "per_step_rates": True}),
    ("class_posterior", {"hidden": (16, 8), "tau_rows": (20.0, 100.0, 500.0), "keeps": ()}),
    ("maml", {"hidden": (16, 16), "inner_lr": 0.05, "first_order": True}),
    ("maml", {"hidden": (16, 16), "inner_lr": 0.05, "steps": 3, "multi_step_until": 0.7, "first_order_until": 0.3}),
    ("matchingnet", {"hidden": (16, 8), "memory_rows": 4}),
    ("matchingnet", {"hidden": (16, 8), "memory_rows": 16, "distance": "cosine"}),
    ("protonet", {"hidden": (16, 8), "distance": "cosine"}),
)
"""Options that change a learner's equations pass it too."""
CONVOLUTIONS: Mapping[str, Mapping[str, Any]] = {
    name: {**given, "network": "conv", "hidden": (5, 6)} for name, given in SMALL.items()
}
"""The same learners on images of 4×4."""
PIXELS = 16
GIVEN = [*SMALL.items(), *VARIANTS, *CONVOLUTIONS.items()]
CASES = [(name, given, task) for name, given in GIVEN for task in sorted(LEARNERS[name].tasks)]


def test_every_learner_is_examined() -> None:
    """A new entry of the table gets its hyper-parameters here."""
    assert SMALL.keys() == LEARNERS.keys()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "given", "task"), CASES)
def test_learner_passes(name: str, given: Mapping[str, Any], task: TaskKind, check: Callable[[Subject], None]) -> None:
    """An entry of the table does what every learner does, on each task that it declares."""
    images = given.get("network") == "conv"
    if images and check is check_adaptation_helps:
        pytest.skip("its tasks are linear in two inputs; test_images has tasks for images")
    outputs, inputs = OUTPUTS[task], PIXELS if images else INPUTS
    learner = LEARNERS[name](task=task, inputs=inputs, outputs=outputs, **given)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    check(Subject(learner, task == "classification", outputs, meta, inputs))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_task_that_a_learner_does_not_declare_is_refused(name: str) -> None:
    """Every learner can do something, and says no to the rest when it is made."""
    kind = LEARNERS[name]
    assert kind.tasks
    for task in set(get_args(TaskKind)) - kind.tasks:
        with pytest.raises(InputError, match=f"only, got {task}"):
            kind(task=task, inputs=INPUTS, outputs=OUTPUTS[task])
