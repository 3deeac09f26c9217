"""Learners by gradient steps: exact outer gradients, guarded inner loops, and how they serve."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.learners.maml import Maml
from models.learners.meta_sgd import MetaSgd
from models.params import flatten, unflatten
from models.types import Batch
from tests.models.learners.tiny import TINY, outer_gradients, rows, tiny_episode, tiny_point


@pytest.mark.parametrize("name", TINY)
def test_outer_gradient_equals_central_differences(name: str) -> None:
    """Second derivatives through every inner step, clipping and learned rates included, to 7 digits."""
    gradient, differences = outer_gradients(TINY[name], progress=1.0)
    assert gradient.abs().max() > 0.1
    assert (gradient - differences).abs().max() < 1e-7


@pytest.mark.parametrize("name", ["maml", "maml, learned rates", "meta-sgd, classes"])
def test_first_order_treats_inner_gradients_as_constants(name: str) -> None:
    """The first-order meta-gradient is the exact one of an inner loop whose gradients are detached."""
    learner = replace(TINY[name], first_order=True)
    vector, meta = tiny_point(learner)
    _, layout = flatten(meta)
    episode, names = tiny_episode(learner), learner.net.names

    def detached(at: Tensor) -> Tensor:
        here = unflatten(at, layout)
        fast = {key: here[key].expand(3, *here[key].shape) for key in names}
        for step in range(learner.steps):
            leaves = [fast[key].detach().requires_grad_() for key in names]
            support = learner._loss(dict(zip(names, leaves, strict=True)), episode.support).sum()
            gradients = torch.autograd.grad(support, leaves)
            rates = learner.rates(here, step)
            fast = {key: fast[key] - rates[key] * g for key, g in zip(names, gradients, strict=True)}
        return learner._loss(fast, episode.query).mean()

    leaf = vector.clone().requires_grad_()
    (expected,) = torch.autograd.grad(detached(leaf), leaf)
    (gradient,) = torch.autograd.grad(learner.query_loss(unflatten(leaf, layout), episode), leaf)
    (exact,) = torch.autograd.grad(
        replace(learner, first_order=False).query_loss(unflatten(leaf, layout), episode), leaf
    )
    assert torch.allclose(gradient, expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(gradient, exact, rtol=1e-3)


def test_noise_model_does_not_move_the_initialization() -> None:
    """The part of the meta-loss that fits the noise has no gradient in the network."""
    learner = TINY["maml"]
    vector, meta = tiny_point(learner)
    _, layout = flatten(meta)
    leaf, episode = vector.clone().requires_grad_(), tiny_episode(learner)
    here = unflatten(leaf, layout)
    total = torch.autograd.grad(learner.meta_loss(here, episode), list(here.values()))
    query = torch.autograd.grad(learner.query_loss(here, episode), [here[name] for name in learner.net.names])
    by_name = dict(zip(here, total, strict=True))
    assert all(torch.equal(by_name[name], g) for name, g in zip(learner.net.names, query, strict=True))
    assert all(bool(by_name[name].any()) for name in ("free_noise", "free_spread", "free_rows"))


@pytest.mark.parametrize("steps", [1, 10, 300])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_no_number_of_steps_leaves_the_finite_numbers(steps: int, scale: float) -> None:
    """Greatest rates, huge targets, hundreds of steps: the last finite parameters stay."""
    learner = MetaSgd("regression", 1, 1, hidden=(8, 8), inner_lr=0.5, gradient_clip=1e6, steps=steps)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    meta |= {name: torch.full_like(tensor, 50.0) for name, tensor in meta.items() if name.startswith("free_rate_")}
    batch = rows(3, 10)
    batch = batch._replace(y=scale * batch.y)
    state, _ = learner.update(meta, learner.init(meta, 3), batch, batch)
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_an_infinite_label_of_one_stream_leaves_the_others_alone() -> None:
    """A stream whose gradient is not finite stays at the initialization; its neighbour adapts as it would alone."""
    learner = Maml("regression", 1, 1)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    batch = rows(2, 5)
    batch.y[0, 2] = torch.inf
    adapted = learner.adapt(meta, batch)
    alone = learner.adapt(meta, Batch(*(tensor[1:] for tensor in batch)))
    for name in learner.net.names:
        assert torch.equal(adapted[name][0], meta[name])
        assert torch.allclose(adapted[name][1:], alone[name], atol=1e-7)


def test_learned_rates_are_bounded() -> None:
    """Whatever is learned, a rate stays positive and within a factor of e³ of where it began."""
    learner = MetaSgd("regression", 1, 1, inner_lr=0.01)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    start = learner.rates(meta, 0)
    assert all(torch.allclose(rate, torch.tensor(0.01)) for rate in start.values())
    for free, bound in ((1e6, 0.01 * torch.e**3), (-1e6, 0.01 / torch.e**3)):
        rates = learner.rates({name: torch.full_like(tensor, free) for name, tensor in meta.items()}, 0)
        assert all(torch.allclose(rate, torch.tensor(bound)) for rate in rates.values())


def test_steps_past_the_trained_take_the_last_rates() -> None:
    """Learned rates are of each step and layer; fewer steps take the first of them."""
    learner = Maml("regression", 1, 1, steps=2, per_step_rates=True, inner_lr=0.1)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    meta["free_rates"] = torch.tensor([[0.0, 1.0, 2.0], [-1.0, -2.0, -3.0]])
    assert learner.rates(meta, 0)["weight_1"] == learner.rates(meta, 0)["bias_1"] > learner.rates(meta, 0)["weight_0"]
    assert learner.rates(meta, 7) == learner.rates(meta, 1)
    batch = rows(2, 5)
    fewer = replace(learner, steps=1).adapt(meta, batch)
    assert not torch.equal(fewer["weight_0"], learner.adapt(meta, batch)["weight_0"])


def test_serving_starts_from_the_initialization_every_time() -> None:
    """Steps do not add up: the same window gives the same parameters, whatever was learned before."""
    learner = Maml("regression", 1, 1, steps=3)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    fresh = learner.init(meta, 2)
    used, _ = learner.update(meta, fresh, rows(2, 5, 1), rows(2, 9, 2))
    once, _ = learner.update(meta, fresh, rows(2, 5, 3), rows(2, 9, 4))
    twice, _ = learner.update(meta, used, rows(2, 5, 3), rows(2, 9, 4))
    assert all(torch.equal(once[name], twice[name]) for name in (*learner.net.names, "rows"))
    assert torch.equal(once["rows"], torch.full((2,), 9.0))


def test_reset_keeps_the_noise_of_the_stream() -> None:
    """How noisy a stream's labels are outlives its drifts."""
    learner = Maml("regression", 1, 1)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    state, _ = learner.update(meta, learner.init(meta, 2), rows(2, 9), rows(2, 9))
    alarm = torch.ones(2, dtype=torch.bool)
    for since in (None, rows(2, 3, 1)):
        assert torch.equal(learner.reset(meta, state, alarm, alarm, since)["noise"], state["noise"])


def test_noise_estimate_finds_the_noise_of_the_stream() -> None:
    """Where the initialization is right already, the tracked variance goes to that of the labels."""
    learner = Maml("regression", 1, 1, hidden=(4,), inner_lr=1e-6)
    meta = {name: torch.zeros_like(tensor) for name, tensor in learner.meta_init(torch.Generator()).items()}
    meta["free_spread"] = torch.full((1,), -5.0)  # tasks do not differ
    generator = torch.Generator().manual_seed(3)
    state = learner.init(meta, 4)
    assert torch.allclose(state["noise"], torch.tensor(1.0))
    for _ in range(60):
        y = 0.3 * torch.randn(4, 50, 1, generator=generator)
        batch = Batch(torch.zeros(4, 50, 1), y, torch.ones(4, 50, dtype=torch.bool))
        state, _ = learner.update(meta, state, batch, batch)
    assert torch.allclose(state["noise"], torch.tensor(0.09), rtol=0.25)


def test_predictive_variance_shrinks_with_the_rows_adapted_on() -> None:
    """A new stream is as unsure as tasks differ; with rows of support only the noise is left."""
    learner = Maml("regression", 1, 1)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    variances = []
    for count in (1, 5, 50):
        batch = rows(1, count)
        state = learner.reset(meta, learner.init(meta, 1), torch.ones(1, dtype=torch.bool), torch.zeros(1), batch)
        predictive = learner.predict(meta, state, batch.x)
        variances.append(float(predictive.var[0, 0, 0, 0]))
        assert float(predictive.var[0, 1, 0, 0]) == pytest.approx(2.0, rel=1e-4)  # noise 1 and spread 1 to begin with
    assert 2.0 > variances[0] > variances[1] > variances[2] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "setting",
    [{"steps": -1}, {"inner_lr": 0.0}, {"gradient_clip": 0.0}, {"multi_step_until": 1.1}, {"first_order_until": -0.1}],
)
def test_settings_without_meaning_are_refused(setting: dict[str, float]) -> None:
    """Before anything is trained."""
    with pytest.raises(ValueError, match=next(iter(setting))):
        Maml("regression", 1, 1, **setting)  # type: ignore[arg-type]


def test_hidden_may_be_a_list() -> None:
    """Hyper-parameters come from JSON."""
    assert Maml("regression", 1, 1, hidden=[8, 8]) == Maml("regression", 1, 1, hidden=(8, 8))  # type: ignore[arg-type]
