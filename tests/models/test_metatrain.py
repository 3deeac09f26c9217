"""The outer loop: what it promises whatever the learner."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from models.errors import TrainingError
from models.learners.maml import Maml
from models.metatrain import SCHEDULES, Progress, Source, meta_train
from models.params import flatten, unflatten
from models.tasks.sinusoid import SinusoidEpisodes
from models.types import Episode, Tensors

EPISODES = SinusoidEpisodes(tasks=4, support=(3, 3), query=3)


@dataclass(frozen=True)
class Bowl(Maml):
    """A learner whose meta-loss is Σ(θ − 3)² but for what ``losses`` says instead, so that the optimum is known."""

    task: str = "regression"  # type: ignore[assignment]
    inputs: int = 1
    outputs: int = 1
    losses: Iterator[float] = field(default_factory=lambda: iter(()))

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Two tensors at zero."""
        del generator
        return {"a": torch.zeros(2), "b": torch.zeros(())}

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """The bowl, times the next factor."""
        del episode, progress
        bowl = (meta["a"] - 3.0).square().sum() + (meta["b"] - 3.0).square()
        return next(self.losses, 1.0) * bowl


def seeded(seed: int = 0) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def test_same_seed_same_bits() -> None:
    """Two runs of one seed agree in every bit; another seed differs."""
    learner = Maml("regression", 1, 1, hidden=(8,))
    runs = [meta_train(learner, EPISODES, generator=seeded(seed), iterations=5).meta for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_outer_step_is_adams() -> None:
    """Ten iterations with a constant rate and a clamp are those of torch.optim.Adam."""
    factors = [1.0, 5.0, 0.2, 3.0, 1.0, 1.0, 9.0, 0.1, 1.0, 1.0]
    found = meta_train(
        Bowl(losses=iter(factors)), EPISODES, generator=seeded(), iterations=10, outer_lr=0.1, schedule="constant"
    )
    theta = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=0.1)
    for factor in factors:
        adam.zero_grad()
        (factor * (theta - 3.0).square().sum()).backward()
        torch.nn.utils.clip_grad_value_([theta], 10.0)
        adam.step()
    assert torch.allclose(torch.cat([found.meta["a"], found.meta["b"].reshape(1)]), theta.detach(), atol=1e-6)


def test_training_converges_to_the_optimum() -> None:
    """With the cosine schedule the bowl's bottom is reached."""
    found = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=300, outer_lr=0.2)
    assert torch.allclose(found.meta["a"], torch.tensor(3.0), atol=1e-2)
    assert found.iterations == 300
    assert not found.interrupted


def test_the_learner_is_told_how_far_training_is() -> None:
    """Objectives that move along get the fraction done, 0 at the first iteration."""
    seen: list[float] = []

    class Told(Bowl):
        def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
            seen.append(progress)
            return super().meta_loss(meta, episode, progress)

    meta_train(Told(), EPISODES, generator=seeded(), iterations=4)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_best_validation_is_kept() -> None:
    """Scores fall, then rise: what comes out is from the lowest."""
    scores = iter([3.0, 1.0, 2.0, 5.0])
    seen: list[Tensors] = []

    def validate(meta: Tensors) -> float:
        seen.append({name: tensor.clone() for name, tensor in meta.items()})
        return next(scores)

    found = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=20, validate=validate, validate_every=5)
    assert found.score == 1.0
    assert len(seen) == 4
    assert torch.equal(found.meta["a"], seen[1]["a"])


def test_keyboard_interrupt_leaves_the_best_so_far() -> None:
    """Ctrl-C in the middle of an iteration ends the loop, not the program."""

    def interrupting(after: int) -> Source:
        calls = iter(range(after))

        def source(generator: torch.Generator) -> Episode:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return EPISODES(generator)

        return source

    stopped = meta_train(Bowl(), interrupting(7), generator=seeded(), iterations=100, schedule="constant")
    whole = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=7, schedule="constant")
    assert stopped.interrupted
    assert stopped.iterations == 7
    assert torch.equal(stopped.meta["a"], whole.meta["a"])
    scores = iter([1.0, 2.0, 3.0])
    best = meta_train(
        Bowl(), interrupting(7), generator=seeded(), iterations=100, schedule="constant",
        validate=lambda _: next(scores), validate_every=3,
    )  # fmt: skip
    first = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=3, schedule="constant")
    assert torch.equal(best.meta["a"], first.meta["a"])


def test_budget_ends_the_run_and_moves_the_schedule() -> None:
    """By the given clock: ten seconds at one a look."""
    ticks = iter(range(1000))
    fractions: list[Progress] = []
    found = meta_train(
        Bowl(), EPISODES, generator=seeded(), budget_seconds=10.0, clock=lambda: float(next(ticks)),
        progress=fractions.append,
    )  # fmt: skip
    assert found.iterations == 10
    assert [round(step.fraction, 6) for step in fractions] == [round(0.1 * n, 6) for n in range(1, 11)]


def test_gradients_that_are_not_finite_change_nothing() -> None:
    """They are skipped and counted, and do not reach Adam's memory."""
    spoiled = meta_train(
        Bowl(losses=iter([1.0, torch.nan, torch.inf, 1.0])), EPISODES, generator=seeded(), iterations=4,
        schedule="constant",
    )  # fmt: skip
    clean = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=2, schedule="constant")
    assert spoiled.skipped == 2
    assert torch.equal(spoiled.meta["a"], clean.meta["a"])


def test_training_that_only_fails_says_so() -> None:
    """A hundred bad gradients in a row are an error, not a long silence."""
    with pytest.raises(TrainingError, match="lower outer_lr"):
        meta_train(Bowl(losses=iter([torch.nan] * 200)), EPISODES, generator=seeded(), iterations=1000)


def test_training_needs_a_limit_and_a_known_schedule() -> None:
    """Both are refused before the first iteration."""
    with pytest.raises(TrainingError, match="limit"):
        meta_train(Bowl(), EPISODES, generator=seeded())
    with pytest.raises(TrainingError, match="cosine"):
        meta_train(Bowl(), EPISODES, generator=seeded(), iterations=1, schedule="linear")


def test_training_goes_on_from_given_tensors() -> None:
    """``start`` replaces the drawn tensors and is left as it was."""
    start = {"a": torch.full((2,), 2.5), "b": torch.tensor(2.5)}
    found = meta_train(Bowl(), EPISODES, generator=seeded(), iterations=0, start=start)
    assert torch.equal(found.meta["a"], start["a"])
    meta_train(Bowl(), EPISODES, generator=seeded(), iterations=3, start=start)
    assert torch.equal(start["a"], torch.full((2,), 2.5))


def test_schedules_start_at_one_and_never_rise() -> None:
    """And halving ends at a 64th: six halvings."""
    for schedule in SCHEDULES.values():
        values = [schedule(step / 100) for step in range(101)]
        assert values[0] == 1.0
        assert all(later <= earlier for earlier, later in pairwise(values))
    assert SCHEDULES["halving"](1.0) == 1 / 64


def test_tensors_survive_being_a_vector() -> None:
    """Flattening and unflattening are inverse, scalars included."""
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7.0), "c": torch.zeros(0, 2)}
    vector, layout = flatten(tensors)
    back = unflatten(vector, layout)
    assert vector.shape == (7,)
    assert all(torch.equal(tensors[name], back[name]) for name in tensors)
