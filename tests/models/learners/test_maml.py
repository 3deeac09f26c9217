"""MAML++'s annealings: the multi-step loss, and the order of derivatives."""

from dataclasses import replace

import pytest
import torch

from models.learners.maml import Maml
from tests.models.learners.tiny import MAML_3, outer_gradients, tiny_episode, tiny_point


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.39])
def test_multi_step_gradient_equals_central_differences(progress: float) -> None:
    """The weighted losses after all steps are one objective, whose gradient is exact too."""
    learner = replace(MAML_3, multi_step_until=0.4)
    gradient, differences = outer_gradients(learner, progress)
    last, _ = outer_gradients(learner, 1.0)
    assert (gradient - differences).abs().max() < 1e-7
    assert not torch.allclose(gradient, last, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_multi_step_weights_sum_to_one(steps: int) -> None:
    """Even at first, falling with progress down to a floor on the early steps; then the last step alone."""
    learner = Maml("regression", 1, 1, steps=steps, multi_step_until=0.5)
    for progress in (0.0, 0.1, 0.3, 0.49, 0.5, 1.0):
        assert sum(learner.step_weights(progress)) == pytest.approx(1.0)
        assert min(learner.step_weights(progress)) > 0.0
    assert learner.step_weights(0.0) == pytest.approx([1 / steps] * steps)
    assert learner.step_weights(0.25) == pytest.approx([0.5 / steps] * (steps - 1) + [1 - 0.5 * (steps - 1) / steps])
    assert learner.step_weights(0.499)[:-1] == pytest.approx([0.03 / steps] * (steps - 1))
    assert learner.step_weights(0.5) == (1.0,)
    assert replace(learner, multi_step_until=0.0).step_weights(0.0) == (1.0,)


def test_multi_step_loss_is_the_weighted_sum_of_shorter_runs() -> None:
    """Judging after each of three steps is three learners of one, two and three steps."""
    learner = Maml("regression", 1, 1, hidden=(4,), steps=3, inner_lr=0.05, multi_step_until=0.5)
    _, meta = tiny_point(learner)
    episode = tiny_episode(learner)
    each = [float(replace(learner, steps=steps).query_loss(meta, episode)) for steps in (1, 2, 3)]
    expected = sum(weight * loss for weight, loss in zip(learner.step_weights(0.2), each, strict=True))
    assert float(learner.query_loss(meta, episode, 0.2)) == pytest.approx(expected, rel=1e-12)


def test_derivative_order_is_annealed() -> None:
    """Of first order until the fraction given, exact from there on."""
    learner = replace(MAML_3, first_order_until=0.3)
    early, _ = outer_gradients(learner, 0.29)
    late, _ = outer_gradients(learner, 0.3)
    first_order, _ = outer_gradients(replace(learner, first_order=True), 1.0)
    exact, _ = outer_gradients(MAML_3, 1.0)
    assert torch.equal(early, first_order)
    assert torch.equal(late, exact)
    assert not torch.allclose(early, late, rtol=1e-3)
