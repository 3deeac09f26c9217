"""Rows to network inputs: every check of a value, and the online standardiser."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import InputError
from models.features import (
    Scales,
    encode_rows,
    init_standardiser,
    input_width,
    network_inputs,
    standardise,
    update_standardiser,
)
from models.types import Expert, Feature, Lags, ModelSpec, Target

A, B = Feature("a", mean=1.0, std=2.0), Feature("b", missing=True)
C = Feature("c", "categorical", categories=("red", "blue"), missing=True)
SPEC = ModelSpec("m", "regression", (A, B, C), Target(), (Expert("e", "bayes_head"),), Lags((1,), (0.1,)))


def test_lists_and_objects_mean_the_same() -> None:
    """A row by order and a row by name encode alike; a missing key is a missing value."""
    listed = encode_rows((A, B, C), [[1.0, None, "blue"], [3, 4, "red"]])
    named = encode_rows((A, B, C), [{"c": "blue", "a": 1.0}, {"b": 4, "a": 3, "c": "red"}])
    np.testing.assert_array_equal(listed, named)
    np.testing.assert_array_equal(listed, [[1.0, np.nan, 1.0], [3.0, 4.0, 0.0]])


def test_an_unknown_category_is_no_error() -> None:
    """The world drifts: it is encoded as none of the known ones."""
    encoded = encode_rows((A, B, C), [[0.0, 0.0, "green"]])
    x = network_inputs(SPEC, torch.zeros(1, 3), torch.ones(1, 3), torch.tensor(encoded)[None].float())
    assert encoded[0, 2] == 2.0
    assert x.shape[-1] == input_width(SPEC) - 3  # without the lag columns that follow in a real row


@pytest.mark.parametrize(
    ("row", "loc", "reason"),
    [
        ([1.0, 2.0], ("inputs", 1), "2 values, the model takes 3"),
        ([1.0, 2.0, "red", 4.0], ("inputs", 1), "4 values, the model takes 3"),
        ({"a": 1.0, "z": 2.0}, ("inputs", 1, "z"), "unknown feature"),
        ([None, 2.0, "red"], ("inputs", 1, "a"), "missing"),
        ([float("nan"), 2.0, "red"], ("inputs", 1, "a"), "not a finite number"),
        ([float("inf"), 2.0, "red"], ("inputs", 1, "a"), "not a finite number"),
        ([10**400, 2.0, "red"], ("inputs", 1, "a"), "not a finite number"),
        (["1", 2.0, "red"], ("inputs", 1, "a"), "expected a number"),
        ([True, 2.0, "red"], ("inputs", 1, "a"), "expected a number"),
        ([1.0, 2.0, 0.5], ("inputs", 1, "c"), "a category is a string"),
        ([1.0, [2.0], "red"], ("inputs", 1, "b"), "expected a number"),
        ("text", ("inputs", 1), "a row is a list"),
        (7, ("inputs", 1), "a row is a list"),
    ],
)
def test_a_bad_value_is_named_by_row_feature_and_reason(row: object, loc: tuple[object, ...], reason: str) -> None:
    """The second row is the bad one."""
    with pytest.raises(InputError, match=reason) as caught:
        encode_rows((A, B, C), [[1.0, 2.0, "red"], row])  # type: ignore[list-item]
    assert caught.value.loc == loc


@given(st.lists(st.lists(st.floats(allow_nan=True), min_size=1, max_size=3), min_size=1, max_size=4))
def test_numeric_rows_are_taken_whole_or_refused(rows: list[list[float]]) -> None:
    """The fast way and the careful way agree on what is sound."""
    features = (Feature("a"), Feature("b"))
    sound = all(len(row) == 2 and np.isfinite(row).all() for row in rows)
    if sound:
        np.testing.assert_array_equal(encode_rows(features, rows), np.array(rows))
    else:
        with pytest.raises(InputError):
            encode_rows(features, rows)


def test_standardise_uses_the_bundles_statistics_and_survives_huge_values() -> None:
    """(value - mean) / std, cut at a million; NaN passes through."""
    z = standardise(Scales.of((A, B)), np.array([[5.0, np.nan], [1e300, 2.0]]))
    np.testing.assert_array_equal(z, [[2.0, np.nan], [1e6, 2.0]])


def test_the_online_standardiser_converges_on_a_stream_of_another_scale() -> None:
    """After many rows mean and variance are the stream's; batches of 1 and of 10 give the same."""
    spec = ModelSpec("m", "regression", (A,), Target(), (Expert("e", "bayes_head"),), standardiser_rows=50)
    rows = torch.randn(1, 1000, 1, generator=torch.Generator().manual_seed(0)) * 3 + 7
    found = []
    for size in (1, 10):
        state = init_standardiser(spec, 1)
        mean, var = state["x_mean"], state["x_var"]
        for start in range(0, 1000, size):
            part = rows[:, start : start + size]
            mean, var = update_standardiser(spec, mean, var, part, torch.ones(1, size, dtype=torch.bool))
        found.append((float(mean), float(var)))
    assert found[0] == pytest.approx((7.0, 9.0), rel=0.25)
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_missing_values_leave_the_standardiser_alone() -> None:
    """A column without a value keeps its mean and variance bit for bit."""
    state = init_standardiser(SPEC, 1)
    z = torch.tensor([[[3.0, torch.nan, 0.0]]])
    mean, var = update_standardiser(SPEC, state["x_mean"], state["x_var"], z, torch.ones(1, 1, dtype=torch.bool))
    assert (float(mean[0, 1]), float(var[0, 1])) == (0.0, 1.0)
    assert float(mean[0, 0]) > 0


def test_network_inputs_are_finite_and_of_the_stated_width() -> None:
    """Missing features and lags become zeros with flags."""
    z = torch.tensor([[[0.5, torch.nan, torch.nan, torch.nan, torch.nan], [9.0, 1.0, 1.0, 0.2, 0.1]]])
    x = network_inputs(SPEC, torch.zeros(1, 3), torch.ones(1, 3), z)
    assert x.shape == (1, 2, input_width(SPEC))
    assert x.isfinite().all()
    assert x[0, 0].tolist() == [0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # a, b, b missing, red, blue, lag, mean, none
    assert x[0, 1].tolist() == pytest.approx([5.0, 1.0, 0.0, 0.0, 1.0, 0.2, 0.1, 0.0])
