"""What a test for change expects of labels: noise, and a share of them in the tails."""

import math

import torch

from models.kalman import Conditioned
from models.learners.noise import OUTLIER_ROWS, OUTLIERS, TrackedNoise, tail_share
from models.types import Batch, Tensors

NOISE = TrackedNoise(outputs=1, rate=0.0)
META: Tensors = {"log_noise": torch.zeros(1)}
FOUND = Conditioned(*(torch.zeros(1, 1, 1, 1),) * 4)


def rows_of(labels: torch.Tensor) -> Batch:
    """One stream's batch."""
    return Batch(labels.new_zeros(1, len(labels), 1), labels.view(1, -1, 1), torch.ones(1, len(labels)).bool())


def learned(labels: torch.Tensor, v: float = 0.0) -> Tensors:
    """State of one member that had predicted 0 for all of them, with variance factor v."""
    state = NOISE.init(META, 1, 1)
    mean = labels.new_zeros(1, 1, len(labels), 1)
    return state | NOISE.learn(META, state, mean, torch.full_like(mean, v), FOUND, rows_of(labels))


def surprise(state: Tensors, label: float) -> float:
    """Nats that a label costs in the test, beyond one that is as predicted."""
    white = torch.tensor([label, 0.0]).view(1, 1, 2, 1)
    nats = []
    for row in range(2):
        one = white[:, :, row : row + 1]
        found = Conditioned(torch.zeros_like(one), torch.zeros_like(one), one, torch.ones_like(one))
        nats.append(float(NOISE.evidence(META, state, found, rows_of(torch.zeros(1)))[1]))
    return nats[1] - nats[0]


def test_clean_streams_expect_fewer_labels_in_the_tails() -> None:
    """The share is a posterior mean: little more than the prior's labels over all rows, where none was far."""
    labels = 0.5 * torch.randn(900, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    share = float(tail_share(learned(labels)))
    assert OUTLIERS / (OUTLIER_ROWS + 900) <= share < 0.5 * OUTLIERS / OUTLIER_ROWS


def test_outliers_are_counted_and_then_surprise_less() -> None:
    """Nine gross labels in 900 rows make a share of a hundredth, and the tenth costs nats less than the first."""
    labels = torch.zeros(900)
    labels[::100] = 30.0
    seen = learned(labels)
    assert math.isclose(float(tail_share(seen)), (OUTLIERS + 9) / (OUTLIER_ROWS + 900), rel_tol=0.1)
    assert surprise(seen, 30.0) < surprise(learned(torch.zeros(900)), 30.0) - 2.0


def test_a_row_that_was_not_foreseen_says_little_of_the_tails() -> None:
    """With nine parts of ten in the weights' uncertainty a far label counts for a tenth of a row."""
    state = learned(torch.full((1,), 300.0), v=9.0)
    torch.testing.assert_close(state["tails"].flatten(), torch.tensor([OUTLIERS + 0.1]))
    torch.testing.assert_close(state["tail_rows"].flatten(), torch.tensor([OUTLIER_ROWS + 0.1]))


def test_padding_says_nothing() -> None:
    """Whatever it holds."""
    state = NOISE.init(META, 1, 1)
    batch = Batch(torch.zeros(1, 1, 1), torch.full((1, 1, 1), torch.nan), torch.zeros(1, 1).bool())
    mean = torch.zeros(1, 1, 1, 1)
    moved = NOISE.learn(META, state, mean, mean, FOUND, batch)
    assert all(torch.equal(moved[name], state[name]) for name in moved)


def test_a_new_challenger_takes_the_members_median() -> None:
    """One live member that a change has left behind has no say in what a new regime's noise is."""
    state = NOISE.init(META, 1, 4)
    state["noise"] = torch.tensor([[[1.0], [1.1], [50.0], [7.0]]])
    moved = NOISE.reset(state, torch.zeros(1, 3).bool(), torch.ones(1).bool(), handed_over=True)
    torch.testing.assert_close(moved["noise"].flatten(), torch.tensor([1.0, 1.1, 50.0, 1.1]))
    torch.testing.assert_close(NOISE.anew(state)["noise"].flatten(), torch.tensor([1.1]))
