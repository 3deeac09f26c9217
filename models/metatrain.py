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


class Checkpoint(NamedTuple):
    """All that meta-training needs to go on as if it had never stopped, after a whole number of iterations.

    Attributes:
        theta: (N,) learned tensors as one vector.
        first: (N,) Adam's first moment.
        second: (N,) Adam's second moment.
        best: (N,) the vector of the best validation.
        generator: State of the random generator, bytes.
        iteration: Iterations done.
        adam_steps: Those whose gradient was finite.
        best_iteration: Iterations after which ``best`` was reached.
        best_score: Its validation score; None before the first validation.
        score: Score of the last validation.
        loss: Meta-loss, exponentially smoothed.
        skipped: Iterations whose gradient was not finite.
        bad: How many of these came last, in a row.
        seconds: Time taken so far.
    """

    theta: Tensor
    first: Tensor
    second: Tensor
    best: Tensor
    generator: Tensor
    iteration: int = 0
    adam_steps: int = 0
    best_iteration: int = 0
    best_score: float | None = None
    score: float | None = None
    loss: float = math.nan
    skipped: int = 0
    bad: int = 0
    seconds: float = 0.0


class Keep(Protocol):
    """Where checkpoints go: told after every iteration, and once more with ``last`` when KeyboardInterrupt stops."""

    def __call__(self, checkpoint: Checkpoint, *, last: bool = False) -> None:
        """Take note of how far training is."""
        ...


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
    resume: Checkpoint | None = None,
    keep: Keep | None = None,
) -> Trained:
    """Minimise ``learner.meta_loss`` over the source's tasks with Adam.

    The same seed gives the same bits, given ``iterations`` and no budget, whether or not training was interrupted and
    resumed. KeyboardInterrupt ends the loop early and leaves the best so far.

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
        resume: Where an interrupted run of the same arguments stood.
        keep: Where checkpoints go.

    Raises:
        TrainingError: No limit, an unknown schedule, a checkpoint of another learner, or 100 gradients in a row that
            are not finite.
    """
    if iterations is None and budget_seconds is None:
        raise TrainingError("meta-training needs a limit: give iterations, budget_seconds or both")
    if schedule not in SCHEDULES:
        raise TrainingError(f"unknown schedule {schedule!r}, choose one of {', '.join(SCHEDULES)}")
    theta, layout = flatten(learner.meta_init(generator) if start is None else start)
    now = _begin(theta.detach().clone(), generator, resume)
    began = clock() - now.seconds
    fraction = _fraction(now.iteration, iterations, now.seconds, budget_seconds)
    interrupted = False
    try:
        while fraction < 1.0:
            value, gradient = _gradient(learner, now.theta, layout, source(generator), fraction)
            rate = outer_lr * SCHEDULES[schedule](fraction)
            later = _advance(now, value, gradient, gradient_bound, rate, weight_decay)
            seconds = clock() - began
            fraction = _fraction(later.iteration, iterations, seconds, budget_seconds)
            if validate is not None and (later.iteration % validate_every == 0 or fraction >= 1.0):
                later = _judged(later, validate(unflatten(later.theta, layout)))
            now = later._replace(generator=generator.get_state(), seconds=seconds)  # an interrupt sees all or nothing
            if keep is not None:
                keep(now)
            if progress is not None:
                progress(Progress(now.iteration, fraction, now.loss, now.score))
    except KeyboardInterrupt:
        interrupted = True
        if keep is not None:
            keep(now, last=True)
    judged = now.best_score is not None
    meta = {name: tensor.clone() for name, tensor in unflatten(now.best if judged else now.theta, layout).items()}
    best_iteration = now.best_iteration if judged else now.iteration
    return Trained(meta, now.iteration, now.loss, now.best_score, now.skipped, interrupted, best_iteration)


def _begin(theta: Tensor, generator: torch.Generator, resume: Checkpoint | None) -> Checkpoint:
    """Where the loop starts; with ``resume`` the generator is put back too."""
    if resume is None:
        zeros = torch.zeros_like(theta)
        return Checkpoint(theta, zeros, zeros, theta, generator.get_state())
    if resume.theta.shape != theta.shape:
        raise TrainingError(
            f"the checkpoint holds {resume.theta.numel()} numbers, the learner {theta.numel()}: it belongs to another"
        )
    generator.set_state(resume.generator)
    return resume


def _advance(
    now: Checkpoint, value: float, gradient: Tensor, bound: float, rate: float, weight_decay: float
) -> Checkpoint:
    """One outer step; a gradient that is not finite changes nothing but the counts."""
    if not (math.isfinite(value) and bool(gradient.isfinite().all())):
        if now.bad + 1 == _BAD_ITERATIONS_MAX:
            raise TrainingError(f"{now.bad + 1} meta-gradients in a row are not finite: lower outer_lr or inner_lr")
        return now._replace(iteration=now.iteration + 1, skipped=now.skipped + 1, bad=now.bad + 1)
    shrunk, steps = (1.0 - rate * weight_decay) * now.theta, now.adam_steps + 1
    theta, first, second = _adam(shrunk, gradient.clamp(-bound, bound), now.first, now.second, steps, rate)
    loss = value if math.isnan(now.loss) else 0.98 * now.loss + 0.02 * value
    return now._replace(
        theta=theta, first=first, second=second, adam_steps=steps, iteration=now.iteration + 1,
        loss=loss, bad=0,
    )  # fmt: skip


def _judged(now: Checkpoint, score: float) -> Checkpoint:
    """After a validation: the best is kept."""
    if now.best_score is None or score < now.best_score:
        return now._replace(score=score, best=now.theta, best_score=score, best_iteration=now.iteration)
    return now._replace(score=score)


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


def _adam(
    theta: Tensor, gradient: Tensor, first: Tensor, second: Tensor, steps: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Step number ``steps`` of Adam (Kingma and Ba, 2015), bias corrected: θ and both moments."""
    beta_1, beta_2 = _BETAS
    first = beta_1 * first + (1.0 - beta_1) * gradient
    second = beta_2 * second + (1.0 - beta_2) * gradient.square()
    scale = (second / (1.0 - beta_2**steps)).sqrt() + _EPSILON
    return theta - rate / (1.0 - beta_1**steps) * first / scale, first, second
