"""The outer loop: meta-train any learner on any source of tasks."""

import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from models.errors import TrainingError
from models.params import Layout, flatten, unflatten
from models.types import Episode, Tensors


class Trainable(Protocol):
    """What of a learner the outer loop needs."""

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """First tensors."""
        ...

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Scalar to minimise."""
        ...


Source: TypeAlias = Callable[[torch.Generator], Episode]
"""Draws one meta-batch of tasks; all its randomness comes from the generator."""


def _cosine(done: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))


def _halving(done: float) -> float:
    return float(0.5 ** math.floor(7.0 * min(done, 1.0 - 1e-9)))


def _constant(done: float) -> float:  # noqa: ARG001  # the interface of all schedules
    return 1.0


SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"constant": _constant, "cosine": _cosine, "halving": _halving},
)
"""Factor of the outer rate by the fraction done: to a hundredth along a cosine, or halved six times."""

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_BAD_ITERATIONS_MAX = 100


class Progress(NamedTuple):
    """Where meta-training stands. ``score`` is the last validation's, ``fraction`` of the iterations or the budget."""

    iteration: int
    fraction: float
    loss: float
    score: float | None


class Trained(NamedTuple):
    """What meta-training gives.

    Attributes:
        meta: The learned tensors of the best validation, or the last ones without validation.
        iterations: Iterations done.
        loss: Meta-loss of the last iteration, exponentially smoothed.
        score: Validation score of ``meta``, where there is validation; lower is better.
        skipped: Iterations whose gradient was not finite and changed nothing.
        interrupted: Stopped by KeyboardInterrupt.
        best_iteration: Iterations after which ``meta`` was reached.
    """

    meta: Tensors
    iterations: int
    loss: float
    score: float | None
    skipped: int
    interrupted: bool
    best_iteration: int


class _Adam(NamedTuple):
    first: Tensor
    second: Tensor
    steps: int


def meta_train(
    learner: Trainable,
    source: Source,
    *,
    generator: torch.Generator,
    iterations: int | None = None,
    budget_seconds: float | None = None,
    outer_lr: float = 1e-3,
    schedule: str = "cosine",
    gradient_bound: float = 10.0,
    weight_decay: float = 0.0,
    start: Tensors | None = None,
    validate: Callable[[Tensors], float] | None = None,
    validate_every: int = 500,
    progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Minimise ``learner.meta_loss`` over the source's tasks with Adam.

    The same seed gives the same bits, given ``iterations`` and no budget. KeyboardInterrupt ends the loop early and
    leaves the best so far.

    Args:
        learner: What to train.
        source: Draws a meta-batch an iteration.
        generator: All randomness: the first tensors, then the tasks.
        iterations: How many, at most.
        budget_seconds: How long, at most, by ``clock``. One of the two limits is needed.
        outer_lr: Adam's rate at the beginning.
        schedule: A name of SCHEDULES; moves with the limit that is nearer.
        gradient_bound: Each number of the meta-gradient is clamped to ± this.
        weight_decay: Share by which every number shrinks per iteration, times the rate (decoupled, as AdamW's).
        start: Learned tensors to go on from, instead of ``learner.meta_init``.
        validate: Score of learned tensors, lower is better; the best are kept.
        validate_every: Iterations between validations; there is one at the end too.
        progress: Called after each iteration.
        clock: Seconds that only grow.

    Raises:
        TrainingError: No limit, an unknown schedule, or 100 gradients in a row that are not finite.
    """
    if iterations is None and budget_seconds is None:
        raise TrainingError("meta-training needs a limit: give iterations, budget_seconds or both")
    if schedule not in SCHEDULES:
        raise TrainingError(f"unknown schedule {schedule!r}, choose one of {', '.join(SCHEDULES)}")
    theta, layout = flatten(learner.meta_init(generator) if start is None else start)
    theta = theta.detach().clone()
    adam = _Adam(torch.zeros_like(theta), torch.zeros_like(theta), 0)
    best, best_score, best_iteration = theta, None, 0
    iteration, bad, skipped, loss, score, interrupted = 0, 0, 0, math.nan, None, False
    began = clock()
    fraction = _fraction(0, iterations, 0.0, budget_seconds)
    try:
        while fraction < 1.0:
            value, gradient = _gradient(learner, theta, layout, source(generator), fraction)
            if math.isfinite(value) and bool(gradient.isfinite().all()):
                gradient = gradient.clamp(-gradient_bound, gradient_bound)
                rate = outer_lr * SCHEDULES[schedule](fraction)
                theta, adam = _adam((1.0 - rate * weight_decay) * theta, gradient, adam, rate)
                loss = value if math.isnan(loss) else 0.98 * loss + 0.02 * value
                bad = 0
            else:
                skipped, bad = skipped + 1, bad + 1
                if bad == _BAD_ITERATIONS_MAX:
                    raise TrainingError(f"{bad} meta-gradients in a row are not finite: lower outer_lr or inner_lr")
            iteration += 1
            fraction = _fraction(iteration, iterations, clock() - began, budget_seconds)
            if validate is not None and (iteration % validate_every == 0 or fraction >= 1.0):
                score = validate(unflatten(theta, layout))
                if best_score is None or score < best_score:
                    best, best_score, best_iteration = theta, score, iteration
            if progress is not None:
                progress(Progress(iteration, fraction, loss, score))
    except KeyboardInterrupt:
        interrupted = True
    chosen = theta if best_score is None else best
    meta = {name: tensor.clone() for name, tensor in unflatten(chosen, layout).items()}
    return Trained(
        meta, iteration, loss, best_score, skipped, interrupted, iteration if best_score is None else best_iteration
    )


def _fraction(iteration: int, iterations: int | None, seconds: float, budget_seconds: float | None) -> float:
    """Fraction done of the limit that is nearer; 1 where a limit is zero."""
    parts = ((float(iteration), iterations), (seconds, budget_seconds))
    return min(1.0, max(done / limit if limit > 0 else 1.0 for done, limit in parts if limit is not None))


def _gradient(
    learner: Trainable, theta: Tensor, layout: Layout, episode: Episode, progress: float
) -> tuple[float, Tensor]:
    leaf = theta.detach().requires_grad_()
    loss = learner.meta_loss(unflatten(leaf, layout), episode, progress)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return float(loss.detach()), gradient


def _adam(theta: Tensor, gradient: Tensor, adam: _Adam, rate: float) -> tuple[Tensor, _Adam]:
    """One step of Adam (Kingma and Ba, 2015), bias corrected."""
    beta_1, beta_2 = _BETAS
    steps = adam.steps + 1
    first = beta_1 * adam.first + (1.0 - beta_1) * gradient
    second = beta_2 * adam.second + (1.0 - beta_2) * gradient.square()
    scale = (second / (1.0 - beta_2**steps)).sqrt() + _EPSILON
    step = rate / (1.0 - beta_1**steps) * first / scale
    return theta - step, _Adam(first, second, steps)
