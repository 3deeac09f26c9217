"""The committee's weights and what it serves, against the formulas written out."""

import math

import pytest
import torch

from models import committee
from models.types import Predictive


def test_weights_follow_bayes_rule_with_a_fixed_share() -> None:
    """W ← (1-s)·w·p/Σ + s/M, s compounded over the batch's rows."""
    weights = torch.tensor([[0.2, 0.5, 0.3]]).log()
    likelihood = torch.tensor([[-1.0, -3.0, -0.5]])
    found = committee.update_weights(weights, likelihood, torch.tensor([4]), 0.01).exp()
    posterior = torch.tensor([0.2, 0.5, 0.3]) * likelihood[0].exp()
    kept = 0.99**4
    torch.testing.assert_close(found[0], kept * posterior / posterior.sum() + (1 - kept) / 3)


def test_a_stream_without_rows_keeps_its_weights() -> None:
    """Bit for bit."""
    weights = torch.tensor([[0.2, 0.8]]).log()
    assert torch.equal(committee.update_weights(weights, torch.zeros(1, 2), torch.tensor([0]), 0.01), weights)


def test_a_member_can_come_back() -> None:
    """However badly it did, the fixed share lets it lead again within a few batches."""
    weights = committee.init_weights(1, 2)
    for _ in range(200):
        weights = committee.update_weights(weights, torch.tensor([[0.0, -10.0]]), torch.tensor([1]), 0.01)
    for _ in range(3):
        weights = committee.update_weights(weights, torch.tensor([[-10.0, 0.0]]), torch.tensor([1]), 0.01)
    assert weights[0, 1] > weights[0, 0]


def test_served_moments_are_the_mixtures() -> None:
    """Mean and variance of (1-h₀)·live + h₀·challenger, against samples' formula written out."""
    predictive = Predictive(
        torch.tensor([0.0, 2.0, 5.0]).view(1, 3, 1, 1), torch.tensor([1.0, 0.5, 4.0]).view(1, 3, 1, 1)
    )
    served = committee.serve("regression", predictive, torch.tensor([[0.25, 0.75]]).log(), 0.1)
    w = [0.9 * 0.25, 0.9 * 0.75, 0.1]
    mean = w[1] * 2 + w[2] * 5
    second = w[0] * 1 + w[1] * (0.5 + 4) + w[2] * (4 + 25)
    assert float(served.mean) == pytest.approx(mean, rel=1e-5)
    assert float(served.var) == pytest.approx(second - mean**2, rel=1e-5)


def test_served_probabilities_are_the_mixtures_and_the_loss_theirs() -> None:
    """Probabilities mix linearly; a row's loss is -log of the mixed probability of its class."""
    probabilities = torch.tensor([[0.7, 0.3], [0.1, 0.9]]).view(1, 2, 1, 2)
    predictive = Predictive(probabilities.log(), torch.empty(0))
    weights = torch.zeros(1, 1)
    served = committee.serve("classification", predictive, weights, 0.25)
    torch.testing.assert_close(
        served.mean.exp()[0, 0], torch.tensor([0.75 * 0.7 + 0.25 * 0.1, 0.75 * 0.3 + 0.25 * 0.9])
    )
    nll = committee.row_nll("classification", predictive, weights, 0.25, torch.tensor([[1]]))
    assert float(nll) == pytest.approx(-math.log(0.75 * 0.3 + 0.25 * 0.9), rel=1e-5)


def test_the_loss_of_a_number_is_the_mixture_density() -> None:
    """Not that of one normal with the mixture's moments."""
    predictive = Predictive(torch.tensor([0.0, 4.0]).view(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    nll = committee.row_nll("regression", predictive, torch.zeros(1, 1), 0.5, torch.tensor([[[4.0]]]))
    density = 0.5 * math.exp(-8) + 0.5
    assert float(nll) == pytest.approx(-math.log(density / math.sqrt(2 * math.pi)), rel=1e-5)


def test_first_weights_are_the_models_where_it_has_one_for_each_member() -> None:
    """A detector that brings members of its own starts them evenly."""
    torch.testing.assert_close(committee.init_weights(3, 2, (0.25, 0.75)).exp(), torch.tensor([[0.25, 0.75]] * 3))
    torch.testing.assert_close(committee.init_weights(1, 4, (0.25, 0.75)).exp(), torch.full((1, 4), 0.25))
