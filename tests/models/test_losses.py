"""Losses against torch.distributions and against loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Distribution, Normal, StudentT

from models import losses


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def log_density(distribution: Distribution, y: torch.Tensor) -> torch.Tensor:
    """Summed over the outputs."""
    found: torch.Tensor = distribution.log_prob(y).sum(-1)
    return found


def test_gaussian_nll_is_the_normal_density() -> None:
    """Summed over outputs, constants included."""
    mean, y, var = draw(2, 3, 4), draw(2, 3, 4, seed=1), draw(2, 3, 4, seed=2).exp()
    expected = -log_density(Normal(mean, var.sqrt()), y)
    assert torch.allclose(losses.gaussian_nll(mean, var, y), expected)


@pytest.mark.parametrize("df", [3.0, 4.0, 30.0])
def test_student_t_is_the_t_density(df: float) -> None:
    """With the variance as squared scale."""
    mean, y, var = draw(2, 3, 4), draw(2, 3, 4, seed=1), draw(2, 3, 4, seed=2).exp()
    expected = log_density(StudentT(df, mean, var.sqrt()), y)
    assert torch.allclose(losses.student_t_log_density(mean, var, y, df=df), expected)


def test_cross_entropy_takes_the_row_s_class() -> None:
    """Members share the labels by broadcasting."""
    log_p = torch.log_softmax(draw(2, 3, 5, 4), dim=-1)
    y = torch.randint(0, 4, (2, 5), generator=torch.Generator().manual_seed(0))
    found = losses.cross_entropy(log_p, y.unsqueeze(1))
    expected = torch.stack([torch.nn.functional.nll_loss(log_p[s, m], y[s], reduction="none")
                            for s in range(2) for m in range(3)]).view(2, 3, 5)  # fmt: skip
    assert torch.equal(found, expected)


def test_masked_mean_sees_only_rows_that_count() -> None:
    """NaN in padding stays there; a stream without rows has mean 0."""
    values = torch.tensor([[1.0, 3.0, torch.nan], [torch.nan] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert torch.equal(losses.masked_mean(values, mask), torch.tensor([2.0, 0.0]))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0, 1e3), st.booleans()), min_size=1, max_size=30),
    st.floats(1e-3, 1e3),
)
def test_track_variance_goes_row_by_row(batch: list[tuple[float, bool]], start: float) -> None:
    """The closed form is the recursion over the rows that count."""
    expected = start
    for squared, counts in batch:
        if counts:
            expected = 0.98 * expected + 0.02 * min(squared, 9 * start)
    values = torch.tensor([squared for squared, _ in batch], dtype=torch.float64).reshape(1, -1, 1)
    mask = torch.tensor([[counts for _, counts in batch]])
    found = losses.track_variance(torch.full((1, 1), start, dtype=torch.float64), values, mask, rate=0.02)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_track_variance_is_batched_over_members_too() -> None:
    """Axes between the stream's and the row's broadcast."""
    squared, mask = draw(2, 3, 5, 4).square(), torch.tensor([[True] * 5, [True, False, True, False, False]])
    variance = draw(2, 3, 4, seed=1).exp()
    found = losses.track_variance(variance, squared, mask.unsqueeze(1))
    for member in range(3):
        assert torch.allclose(found[:, member], losses.track_variance(variance[:, member], squared[:, member], mask))
