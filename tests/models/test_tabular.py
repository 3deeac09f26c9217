"""The network for tables: what it learns, what is missing, and that its tensors are all there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models import Tabular, TrainingError, fit_network, network_scores

SMALL = Tabular("regression", bins=16, members=2, hidden=32, learning_rate=1e-2, batch_rows=64, steps_min=250, epochs=1)
PREFIX = "net."


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two uniform inputs and one that says nothing, and the sign of the product of the two: no line tells it."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    return x, np.sign(x[:, 0] * x[:, 1])


def asked(tensors: dict[str, torch.Tensor], x: np.ndarray) -> np.ndarray:
    """Raw scores."""
    return network_scores(tensors, torch.from_numpy(x.astype(np.float32)), PREFIX).numpy()


def test_numbers_that_no_line_tells_are_learned() -> None:
    """Half the error of the best constant at least, on rows that it has not seen; all members speak."""
    (x, y), (judged, truth) = rows(800, 0), rows(400, 1)
    tensors = fit_network(SMALL, x, y, PREFIX)
    assert np.abs(asked(tensors, judged)[:, 0] - truth).mean() < 0.5
    assert tensors["net.out_weight"].shape == (2, 32, 1)


def test_classes_come_as_log_probabilities_of_all() -> None:
    """They sum to one; a class that no row shows is improbable; most answers are right."""
    (x, y), (judged, truth) = rows(800, 0), rows(400, 1)
    how = replace(SMALL, task="classification", classes=3)
    scores = asked(fit_network(how, x, (y > 0).astype(np.int64), PREFIX), judged)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0, rtol=1e-5)
    assert np.exp(scores[:, 2]).max() < 0.1
    assert (scores.argmax(1) == (truth > 0)).mean() > 0.8


def test_missing_values_and_constants_are_inputs_like_others() -> None:
    """That a value is missing tells the target here; a constant column and rows alone change nothing."""
    x, _ = rows(600, 0)
    gone = np.random.default_rng(2).random(600) < 0.5
    x[gone, 0], x[:, 2] = np.nan, 7.0
    tensors = fit_network(SMALL, x, gone.astype(np.float64), PREFIX)
    scores = asked(tensors, x)
    assert np.abs(scores[:, 0] - gone).mean() < 0.1
    np.testing.assert_allclose(np.concatenate([asked(tensors, x[:1]), asked(tensors, x[1:])]), scores, atol=1e-5)
    assert np.isfinite(asked(tensors, np.full((2, 3), [[np.nan], [1e30]]))).all()


def test_the_same_seed_gives_the_same_tensors_and_leaves_the_global_one_alone() -> None:
    """Another seed gives others."""
    x, y = rows(200, 0)
    how = replace(SMALL, steps_min=5, batch_rows=64)
    before = torch.random.get_rng_state()
    one, again, other = (fit_network(replace(how, seed=seed), x, y, PREFIX) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.out_weight"], other["net.out_weight"])


def test_no_rows_are_refused() -> None:
    """With one sentence."""
    with pytest.raises(TrainingError, match="needs rows"):
        fit_network(SMALL, np.zeros((0, 3)), np.zeros(0), PREFIX)
