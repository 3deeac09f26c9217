"""Labels to the learners' scale and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models import InputError
from models.targets import encode_targets, from_scale, label_std, log_slope, to_scale, yeo_johnson
from models.types import Expert, Feature, Label, ModelSpec, Target, TaskKind

POWERS = (-0.5, 0.0, 0.3, 1.0, 1.6, 2.0)


def spec(target: Target, task: TaskKind = "regression") -> ModelSpec:
    """A model of one feature."""
    return ModelSpec("m", task, (Feature("a"),), target, (Expert("e", "bayes_head"),))


@given(st.floats(-20, 100), st.sampled_from(POWERS))
def test_scaling_there_and_back_gives_the_label(label: float, power: float) -> None:
    """For every power, within the range that the transform reaches."""
    target = Target(mean=(0.7,), std=(2.5,), power=power)
    back = from_scale(target, to_scale(target, np.array([[label]])))
    assert back[0, 0] == pytest.approx(label, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("power", POWERS)
def test_yeo_johnson_is_scipys(power: float) -> None:
    """The same transform as an independent implementation."""
    y = np.linspace(-5, 20, 101)
    np.testing.assert_allclose(yeo_johnson(y, power), stats.yeojohnson(y, power), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("power", POWERS)
def test_log_slope_is_the_derivative(power: float) -> None:
    """Against central differences."""
    target = Target(mean=(0.7,), std=(2.5,), power=power)
    y = np.array([[-3.0], [-0.4], [0.3], [12.0]])
    slope = (to_scale(target, y + 1e-6) - to_scale(target, y - 1e-6)) / 2e-6
    np.testing.assert_allclose(log_slope(target, y), np.log(slope), rtol=1e-5, atol=1e-6)


def test_label_std_is_that_of_samples() -> None:
    """Quadrature through a power transform against a million draws."""
    target = Target(mean=(2.0,), std=(1.5,), power=0.3)
    draws = np.random.default_rng(0).normal(0.4, 0.5, size=(1_000_000, 1))
    expected = from_scale(target, draws).std()
    found = label_std(target, np.array([[0.4]]), np.array([[0.5]]))
    assert found[0, 0] == pytest.approx(expected, rel=0.01)


def test_predictions_are_cut_far_outside_the_training_labels() -> None:
    """One whole range beyond either end is allowed, no more."""
    target = Target(low=(0.0,), high=(10.0,))
    np.testing.assert_array_equal(from_scale(target, np.array([[-50.0], [15.0], [1e9]])), [[-10.0], [15.0], [20.0]])


@pytest.mark.parametrize("label", ["cat", 1.0, None, 2, [0], "0", True])
def test_an_unknown_class_is_refused(label: Label | None) -> None:
    """Types count: True, 1.0 and "0" are not the class 0 or 1."""
    with pytest.raises(InputError, match="unknown class") as caught:
        encode_targets(spec(Target(classes=(0, 1)), "classification"), [0, label])
    assert caught.value.loc == ("targets", 1)


def test_classes_encode_as_their_positions() -> None:
    """In the order of the probabilities."""
    encoded = encode_targets(spec(Target(classes=("no", "yes")), "classification"), ["yes", "no"])
    np.testing.assert_array_equal(encoded, [[1.0], [0.0]])


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("3", "expected a number"),
        (None, "expected a number"),
        (float("nan"), "finite"),
        ([1, 2], "expected 1"),
        (10**400, "finite"),
    ],
)
def test_a_bad_number_is_refused(label: object, reason: str) -> None:
    """With its row and the reason."""
    with pytest.raises(InputError, match=reason) as caught:
        encode_targets(spec(Target()), [1.0, label])
    assert caught.value.loc == ("targets", 1)


def test_several_outputs_take_lists() -> None:
    """A list a row, all of the same length."""
    two = spec(Target(mean=(0.0, 1.0), std=(1.0, 2.0)))
    np.testing.assert_array_equal(encode_targets(two, [[1, 2], [3.5, 4]]), [[1.0, 2.0], [3.5, 4.0]])
    with pytest.raises(InputError, match="expected 2 number"):
        encode_targets(two, [[1, 2], 3])
