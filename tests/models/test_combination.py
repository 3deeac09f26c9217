"""What a stream learns about its committee: stacked numbers, pooled classes, intervals that hold what they promise."""

import math
from dataclasses import replace

import numpy as np
import torch

from models import committee
from models.combination import (
    POOL_MIXTURE_VARIANCE,
    POOL_TAU_ROWS,
    POOL_VARIANCE,
    Said,
    init_combination,
    learn,
    pack,
    reach_of,
    say,
    unpack,
    width_said,
)
from models.types import Feature, ModelSpec, Predictive, Target, Tensors

NUMBERS = ModelSpec("n", "regression", (Feature("a"),), Target(), (), stacked=True)
CLASSES = replace(NUMBERS, task="classification", target=Target("y", classes=("a", "b", "c")))
ROWS = 1500


def told(spec: ModelSpec, state: Tensors, members: Predictive) -> Said:
    """What two members say as an even mixture."""
    return say(spec, state, members, committee.mixed(spec.task, members, torch.full((1, 2), -math.log(2.0))))


def test_stacking_learns_which_member_to_believe() -> None:
    """One member is right and one is noise: the correction halves the error of the even mixture, at least."""
    rng = torch.Generator().manual_seed(0)
    state = init_combination(NUMBERS, 1, 2) | {"weights": committee.init_weights(1, 2)}
    served, mixed = [], []
    for _ in range(ROWS):
        y = torch.randn(1, 1, 1, generator=rng)
        other = torch.randn(1, 1, 1, generator=rng)
        members = Predictive(torch.stack([y + 0.05, other], dim=1), torch.full((1, 2, 1, 1), 0.5))
        said = told(NUMBERS, state, members)
        served.append(float((said.served.mean - y).abs()))
        mixed.append(float((said.mixture.mean - y).abs()))
        state |= learn(NUMBERS, state, said, y, torch.ones(1, 1, dtype=torch.bool))
    assert sum(served[500:]) < 0.5 * sum(mixed[500:])


def test_intervals_come_to_hold_what_they_promise() -> None:
    """A variance that is four times too small, then rows: 90% intervals hold 87% to 93% of the labels."""
    rng = torch.Generator().manual_seed(1)
    state = init_combination(NUMBERS, 1, 2) | {"weights": committee.init_weights(1, 2)}
    inside = 0
    for row in range(ROWS):
        y = torch.randn(1, 1, 1, generator=rng)
        members = Predictive(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 0.25))
        said = told(NUMBERS, state, members)
        half = float(reach_of(state["combination.reach"], 0.9)) * 0.5
        inside += int(row >= 500 and abs(float(y - said.served.mean)) < half)
        state |= learn(NUMBERS, state, said, y, torch.ones(1, 1, dtype=torch.bool))
    assert 0.87 < inside / (ROWS - 500) < 0.93


def test_pooling_sharpens_members_that_are_too_modest() -> None:
    """Members that give the right class 0.4 end up served with a lower log loss than theirs."""
    rng = torch.Generator().manual_seed(2)
    state = init_combination(CLASSES, 1, 2) | {"weights": committee.init_weights(1, 2)}
    losses = []
    for _ in range(ROWS):
        y = torch.randint(3, (1, 1), generator=rng)
        p = torch.full((1, 2, 1, 3), 0.3)
        p[..., int(y)] = 0.4
        said = told(CLASSES, state, Predictive(p.log(), torch.empty(0)))
        losses.append(-float(said.served.mean[0, 0, int(y)]))
        state |= learn(CLASSES, state, said, y, torch.ones(1, 1, dtype=torch.bool))
    assert sum(losses[-100:]) / 100 < 0.8 * -math.log(0.4)


def test_what_was_said_survives_packing() -> None:
    """Members, mixture, earlier errors and answer come back bit for bit, and padding teaches nothing."""
    rng = torch.Generator().manual_seed(3)
    state = init_combination(NUMBERS, 2, 2) | {"weights": committee.init_weights(2, 2)}
    members = Predictive(torch.randn(2, 2, 4, 1, generator=rng), torch.rand(2, 2, 4, 1, generator=rng) + 0.1)
    mixture = committee.mixed("regression", members, committee.init_weights(2, 2))
    said = say(NUMBERS, state, members, mixture)
    packed = pack(NUMBERS, said)
    assert packed.shape == (2, 4, width_said(NUMBERS, 2))
    again = unpack(NUMBERS, packed, 2)
    for one, other in ((said.members, again.members), (said.mixture, again.mixture), (said.served, again.served)):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.var, other.var)
    assert torch.equal(said.errors, again.errors)
    nothing = learn(NUMBERS, state, said, torch.randn(2, 4, 1, generator=rng), torch.zeros(2, 4, dtype=torch.bool))
    for key, value in nothing.items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_pooling_takes_the_newton_step_of_its_posterior() -> None:
    """One row moves the weights to prior precision + Fisher information, written out in float64 with NumPy."""
    spec, rng = replace(CLASSES, delay_rows=3.0), np.random.default_rng(0)
    state = init_combination(spec, 1, 2) | {"weights": committee.init_weights(1, 2)}
    members = Predictive(torch.log_softmax(torch.from_numpy(rng.normal(size=(1, 2, 1, 3))).float(), -1), torch.empty(0))
    said = told(spec, state, members)
    new = learn(spec, state, said, torch.tensor([[2]]), torch.ones(1, 1, dtype=torch.bool))
    middle = said.mixture.mean[0, 0].double().numpy()
    votes = np.stack([*(members.mean[0, :, 0].double().numpy() - middle), middle])  # (M + 1, C)
    p = np.exp(middle)
    fisher = votes @ (np.diag(p) - np.outer(p, p)) @ votes.T
    prior = np.diag([POOL_VARIANCE, POOL_VARIANCE, POOL_MIXTURE_VARIANCE])
    covariance = np.linalg.inv(np.linalg.inv(prior) + 0.5 * fisher)  # a label three rows late counts 1/√4
    weights = np.array([0.0, 0.0, 1.0]) + 0.5 * covariance @ votes @ (np.array([0.0, 0.0, 1.0]) - p)
    keep = (1 - 1 / (2 * POOL_TAU_ROWS)) ** 0.5
    expected = np.array([0.0, 0.0, 1.0]) + keep * (weights - np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(new["combination.pool"][0].numpy(), expected, rtol=1e-5, atol=1e-6)
    reverted = keep**2 * covariance + (1 - keep**2) * prior
    np.testing.assert_allclose(new["combination.pool_P"][0].numpy(), reverted, rtol=1e-4, atol=1e-6)
