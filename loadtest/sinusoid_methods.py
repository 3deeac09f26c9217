"""How each learner is meta-trained for the sinusoid benchmark, and what is expected of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from models import LEARNERS, Learner, Sinusoid, SinusoidEpisodes

SHOTS = 10
"""Labelled points where the columns are gradient steps."""
NEVER_FORGET_ROWS = 1e9


@dataclass(frozen=True)
class Method:
    """How a learner is trained and what is expected of it.

    Attributes:
        title: What the tables call it.
        learner: Its name in LEARNERS.
        hyper_parameters: Its own; with the number of ``steps`` here it is measured by labelled points.
        source: What it is meta-trained on.
        training: Arguments of ``meta_train``.
        shots: Labelled points at which it is measured.
        targets: Greatest mean squared error by labelled points, mean over the seeds.
        steps: Gradient steps on 10 labelled points at which it is measured.
        step_targets: Greatest mean squared error by gradient steps.
        cited: Figures of others in the same protocol, by labelled points.
        drawn: Whether it has a panel in the picture.
    """

    title: str
    learner: str
    hyper_parameters: Mapping[str, Any]
    source: SinusoidEpisodes
    training: Mapping[str, Any]
    shots: tuple[int, ...]
    targets: Mapping[int, float]
    steps: tuple[int, ...] = ()
    step_targets: Mapping[int, float] = field(default_factory=dict)
    cited: Mapping[int, float] = field(default_factory=dict)
    drawn: bool = False

    def build(self, **changes: Any) -> Learner:
        """The learner, with some hyper-parameters changed."""
        return LEARNERS[self.learner](task="regression", inputs=1, outputs=1, **{**self.hyper_parameters, **changes})


def _points(count: int) -> SinusoidEpisodes:
    return SinusoidEpisodes(tasks=25, support=(count, count), query=10)


_NETWORK: Mapping[str, Any] = {"hidden": (40, 40), "activation": "relu"}
_ONE_STEP: Mapping[str, Any] = {**_NETWORK, "inner_lr": 0.01, "steps": 1}
_TRAINING: Mapping[str, Any] = {"iterations": 15_000, "outer_lr": 3e-3, "schedule": "cosine", "gradient_bound": 10.0}
_STEPS = (0, 1, 2, 5, 10)
_FEW = (5, 10, 20)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "maml": Method(
            "MAML, 1 step", "maml", _ONE_STEP, _points(10), _TRAINING, _FEW, {5: 1.17, 10: 0.52, 20: 0.56},
            _STEPS, {1: 0.52, 10: 0.17}, {5: 1.17, 10: 0.67, 20: 0.56}, drawn=True,
        ),
        "maml_5": Method(
            "MAML, 1 step, trained on 5 points", "maml", _ONE_STEP, _points(5), _TRAINING, _FEW,
            {5: 1.13, 10: 0.85, 20: 0.71}, _STEPS, {}, {5: 1.13, 10: 0.85, 20: 0.71},
        ),
        "fomaml": Method(
            "MAML of first order, 1 step", "maml", {**_ONE_STEP, "first_order": True}, _points(10), _TRAINING, _FEW,
            {}, _STEPS,
        ),
        "reptile": Method(
            "Reptile, 5 steps", "reptile", {**_NETWORK, "inner_lr": 0.02, "steps": 5}, _points(10), _TRAINING, _FEW,
            {}, _STEPS,
        ),
        "meta_sgd": Method(
            "Meta-SGD, 1 step", "meta_sgd", _ONE_STEP, _points(10), _TRAINING, _FEW, {5: 0.88, 10: 0.31, 20: 0.35},
            _STEPS, {1: 0.31}, {5: 0.88, 10: 0.3145, 20: 0.35}, drawn=True,
        ),
        "meta_sgd_5": Method(
            "Meta-SGD, 1 step, trained on 5 points", "meta_sgd", _ONE_STEP, _points(5), _TRAINING, _FEW,
            {5: 0.90, 10: 0.63, 20: 0.50}, _STEPS, {}, {5: 0.90, 10: 0.63, 20: 0.50},
        ),
        "anil": Method(
            "ANIL, 5 steps", "anil",
            {**_NETWORK, "inner_lr": 0.1, "steps": 5, "per_step_rates": True, "multi_step_until": 0.5},
            _points(10), _TRAINING, _FEW, {}, _STEPS,
        ),
        "cavia": Method(
            "CAVIA, 5 context parameters, 1 step", "cavia", {**_NETWORK, "inner_lr": 1.0, "steps": 1, "context": 5},
            _points(10), {**_TRAINING, "iterations": 25_000, "outer_lr": 1e-2}, _FEW, {10: 0.21}, _STEPS, {},
            {10: 0.19},
        ),
        "bayes_head": Method(
            "Bayesian head, ALPaCA's protocol", "bayes_head",
            {"hidden": (128, 128, 32), "skip": False, "full_prior": True,
             "tau_rows": (NEVER_FORGET_ROWS,), "challenger_tau_rows": NEVER_FORGET_ROWS},
            SinusoidEpisodes(Sinusoid(noise_std=math.sqrt(0.05)), tasks=40, support=(0, 20), query=20),
            {"iterations": 2_500, "outer_lr": 5e-3, "schedule": "halving"},
            (0, 1, 2, 5, 10, 20), {5: 0.04, 10: 0.02, 20: 0.01}, drawn=True,
        ),
    },
)  # fmt: skip
