"""Structure of request bodies: what is taken, and what is named when it is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from service.config import Settings
from service.errors import InvalidError
from service.schemas import (
    FeedbackBody,
    LabelsBody,
    Limits,
    PredictBody,
    parse_activate,
    parse_feedback,
    parse_labels,
    parse_predict,
    parse_rollback,
    parse_stream,
)

ROW = [1.0, 2.0]


def test_parse_predict_takes_rows_of_both_kinds() -> None:
    """Rows stay as they came; their values are the model's to check."""
    asked = parse_predict({"inputs": [ROW, {"a": 1, "b": None}], "interval": 0.9}, 10)
    assert asked.inputs == [ROW, {"a": 1, "b": None}]
    assert asked.interval == 0.9


def test_parse_feedback_turns_times_into_seconds() -> None:
    """Text with and without an offset and numbers all become seconds since 1970."""
    times = ["1970-01-01T00:01:00Z", "1970-01-01T01:00:30+01:00", "1970-01-01T00:00:10", 5]
    asked = parse_feedback({"inputs": [ROW] * 4, "targets": [1, 2, 3, 4], "times": times}, 10)
    assert asked.times == [60.0, 30.0, 10.0, 5.0]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ([], ()),
        (None, ()),
        ({}, ("inputs",)),
        ({"inputs": None}, ("inputs",)),
        ({"inputs": []}, ("inputs",)),
        ({"inputs": {"0": ROW}}, ("inputs",)),
        ({"inputs": "rows"}, ("inputs",)),
        ({"inputs": [ROW] * 11}, ("inputs",)),
        ({"inputs": [ROW], "interval": 1}, ("interval",)),
        ({"inputs": [ROW], "interval": True}, ("interval",)),
        ({"inputs": [ROW], "interval": "0.9"}, ("interval",)),
        ({"inputs": [ROW], "rows": []}, ("rows",)),
        ({"inputs": [ROW], "ids": "a"}, ("ids",)),
        ({"inputs": [ROW], "ids": []}, ("ids",)),
        ({"inputs": [ROW], "ids": ["a", "b"]}, ("ids",)),
        ({"inputs": [ROW], "ids": ["a b"]}, ("ids", 0)),
    ],
)
def test_parse_predict_names_the_wrong_field(body: Any, loc: tuple[str, ...]) -> None:
    """The error's place is the field at fault."""
    with pytest.raises(InvalidError) as caught:
        parse_predict(body, 10)
    assert caught.value.errors[0].loc == loc


@pytest.mark.parametrize(
    ("extra", "loc"),
    [
        ({"targets": None}, ("targets",)),
        ({"targets": 3}, ("targets",)),
        ({"targets": []}, ("targets",)),
        ({"targets": [1]}, ("targets",)),
        ({"targets": [1, 2, 3]}, ("targets",)),
        ({"ids": ["a"]}, ("ids",)),
        ({"ids": "ab"}, ("ids",)),
        ({"ids": ["a", ""]}, ("ids", 1)),
        ({"ids": ["a", "b\n"]}, ("ids", 1)),
        ({"ids": ["a", "b" * 129]}, ("ids", 1)),
        ({"ids": ["a", 7]}, ("ids", 1)),
        ({"times": [1]}, ("times",)),
        ({"times": [1, "noon"]}, ("times", 1)),
        ({"times": [True, 1]}, ("times", 0)),
        ({"interval": 0.9}, ("interval",)),
    ],
)
def test_parse_feedback_names_the_wrong_field(extra: dict[str, Any], loc: tuple[str | int, ...]) -> None:
    """Lists that do not fit the rows, bad ids and bad times are named by field and index."""
    with pytest.raises(InvalidError) as caught:
        parse_feedback({"inputs": [ROW, ROW], "targets": [1, 2]} | extra, 10)
    assert caught.value.errors[0].loc == loc


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ([], ()),
        ({}, ("model",)),
        ({"model": 3}, ("model",)),
        ({"model": "m", "config": {"window_rows": "8"}}, ("config", "window_rows")),
        ({"model": "m", "config": {"window": 8}}, ("config", "window")),
        ({"model": "m", "metadata": [1]}, ("metadata",)),
        ({"model": "m", "metadata": {"note": "x" * 200}}, ("metadata",)),
        ({"model": "m", "extra": 1}, ("extra",)),
    ],
)
def test_parse_stream_names_the_wrong_field(body: Any, loc: tuple[str, ...]) -> None:
    """Each wrong field is in the error with its path."""
    with pytest.raises(InvalidError) as caught:
        parse_stream(body, 100)
    assert caught.value.errors[0].loc == loc


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "inputs": st.lists(st.lists(st.floats(-9, 9), max_size=2), max_size=3) | st.integers(),
            "targets": st.lists(st.floats(-9, 9), max_size=3) | st.none(),
            "ids": st.lists(st.text("ab é", max_size=2), max_size=3) | st.none(),
            "interval": st.floats(-1, 2) | st.none(),
            "labels": st.lists(
                st.fixed_dictionaries({"id": st.text("ab é", max_size=2)}, optional={"target": st.floats(-9, 9)})
            ),
            "other": st.none(),
        },
    )
)
def test_parsers_take_nothing_that_the_description_refuses(body: dict[str, Any]) -> None:
    """What the hand-written checks let through fits the pydantic model that the OpenAPI description shows."""
    pairs: list[tuple[Any, type[BaseModel]]] = [
        (parse_predict, PredictBody),
        (parse_feedback, FeedbackBody),
        (parse_labels, LabelsBody),
    ]
    for parse, described in pairs:
        try:
            parse(body, 10)
        except InvalidError:
            continue
        described.model_validate(body)


@given(st.lists(st.lists(st.floats(-9, 9), max_size=2), min_size=1, max_size=3), st.floats(0.01, 0.99) | st.none())
def test_parsers_take_all_that_the_description_takes(inputs: list[Any], interval: float | None) -> None:
    """A predict body that the pydantic model accepts passes the hand-written checks."""
    body = {"inputs": inputs, "interval": interval}
    try:
        PredictBody.model_validate(body)
    except ValidationError:
        return
    assert parse_predict(body, 10).interval == interval


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ([], ()),
        ({}, ("labels",)),
        ({"labels": None}, ("labels",)),
        ({"labels": {"x": 1}}, ("labels",)),
        ({"labels": [{"id": "x", "target": 1}] * 11}, ("labels",)),
        ({"labels": ["x"]}, ("labels", 0)),
        ({"labels": [{"id": "x"}]}, ("labels", 0)),
        ({"labels": [{"id": "x", "target": 1, "time": 2}]}, ("labels", 0)),
        ({"labels": [{"id": 3, "target": 1}]}, ("labels", 0, "id")),
        ({"labels": [], "ids": []}, ("ids",)),
    ],
)
def test_parse_labels_names_the_wrong_field(body: Any, loc: tuple[str | int, ...]) -> None:
    """The error's place is the label at fault."""
    with pytest.raises(InvalidError) as caught:
        parse_labels(body, 10)
    assert caught.value.errors[0].loc == loc


def test_parse_feedback_needs_no_inputs_beside_ids() -> None:
    """Rows that were kept need not be sent again; what stands beside targets has as many entries."""
    asked = parse_feedback({"targets": [1, 2], "ids": ["a", "b"], "times": [1, 2]}, 10)
    assert (asked.inputs, asked.ids, asked.times) == (None, ["a", "b"], [1.0, 2.0])
    for body, name in (
        ({"targets": [1], "ids": ["a", "b"]}, "ids"),
        ({"targets": [1] * 11, "ids": ["a"] * 11}, "targets"),
        ({"targets": [1]}, "inputs"),
    ):
        with pytest.raises(InvalidError) as caught:
            parse_feedback(body, 10)
        assert caught.value.errors[0].loc == (name,)


def test_limits_are_settings() -> None:
    """Every published limit is a setting of the same name."""
    assert set(Limits.model_fields) <= set(Settings.model_fields)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -1, True, "1", None])
def test_numbers_that_no_store_has_are_refused(number: Any) -> None:
    """Of versions and revisions; JSON has integers that SQLite has not."""
    with pytest.raises(InvalidError, match="version"):
        parse_activate({"version": number})
    with pytest.raises(InvalidError, match="revision"):
        parse_rollback({"revision": number})
    assert parse_activate({"version": 2**63 - 1}) == 2**63 - 1
