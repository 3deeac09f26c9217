"""Tensors survive both forms, and whatever else arrives is refused by name."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.errors import InvalidError
from service.oip.tensors import BOOL, BYTES, DATATYPES, NUMBERS, Tensor, check_shape, pack, values_of

EXAMPLES = settings(deadline=None, derandomize=True)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    """Values of a datatype."""
    if datatype == BYTES:
        return st.text(max_size=9)
    if datatype == BOOL:
        return st.booleans()
    kind = np.dtype(NUMBERS[datatype])
    if kind.kind == "f":
        return st.floats(width=8 * kind.itemsize, allow_nan=False)  # type: ignore[arg-type]  # 16, 32 or 64
    bounds = np.iinfo(kind)
    return st.integers(int(bounds.min), int(bounds.max))


@st.composite
def filled(draw: st.DrawFn) -> tuple[str, tuple[int, ...], list[Any]]:
    """A datatype, a shape, and values that fill it."""
    datatype, shape = draw(st.sampled_from(DATATYPES)), draw(SHAPES)
    count = math.prod(shape)
    return datatype, shape, draw(st.lists(elements(datatype), min_size=count, max_size=count))


def nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Values in lists of a shape."""
    if not shape:
        return values[0]
    size = len(values) // shape[0] if shape[0] else 0
    return [nested(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


def read(tensor: Tensor, loc: tuple[str | int, ...]) -> list[Any] | InvalidError:
    """The values, or why there are none."""
    try:
        return values_of(tensor, loc)
    except InvalidError as error:
        return error


@EXAMPLES
@given(filled())
def test_what_is_packed_is_read_back(case: tuple[str, tuple[int, ...], list[Any]]) -> None:
    """Every datatype in binary form, bit for bit."""
    datatype, shape, values = case
    assert values_of(Tensor("x", datatype, shape, pack(datatype, values)), ()) == values


@EXAMPLES
@given(filled())
def test_flat_and_nested_data_are_the_same(case: tuple[str, tuple[int, ...], list[Any]]) -> None:
    """In row-major order, with null where it stands."""
    datatype, shape, values = case
    values = [None, *values[1:]] if values else values
    assert values_of(Tensor("x", datatype, shape, values), ()) == values
    if shape:
        assert values_of(Tensor("x", datatype, shape, nested(values, shape)), ()) == values


@EXAMPLES
@given(st.sampled_from(DATATYPES), SHAPES, st.binary(max_size=64))
def test_garbage_is_read_whole_or_refused(datatype: str, shape: tuple[int, ...], content: bytes) -> None:
    """Whatever the bytes, there come as many values as the shape says, or one error; nothing is left over."""
    found = read(Tensor("x", datatype, shape, content), ("inputs", 0))
    if isinstance(found, InvalidError):
        assert found.errors[0].loc == ("inputs", 0)
        return
    assert len(found) == math.prod(shape)
    if not any(isinstance(value, float) and math.isnan(value) for value in found):
        assert pack(datatype, found) == content


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@EXAMPLES
@given(st.sampled_from(DATATYPES), SHAPES, st.lists(JSON_VALUES, max_size=5))
def test_any_json_data_is_read_or_refused(datatype: str, shape: tuple[int, ...], data: list[Any]) -> None:
    """Values of the datatype, as many as the shape says, or one error at the data."""
    found = read(Tensor("x", datatype, shape, data), ("inputs", 3))
    if isinstance(found, InvalidError):
        assert found.errors[0].loc[:3] == ("inputs", 3, "data")
        return
    assert len(found) == math.prod(shape)
    assert {list, dict} & set(map(type, found)) == set()


@EXAMPLES
@given(st.sampled_from(DATATYPES), SHAPES, st.integers(1, 9))
def test_bytes_too_few_or_too_many_are_refused(datatype: str, shape: tuple[int, ...], more: int) -> None:
    """The length has to be that of the shape, to the byte."""
    values: list[Any] = [{BYTES: "é", BOOL: True}.get(datatype, 1)] * math.prod(shape)
    content = pack(datatype, values)
    wrong = [content + bytes(more)]
    if content:
        wrong.append(content[:-more])
    for given_bytes in wrong:
        assume(given_bytes != content)
        with pytest.raises(InvalidError):
            values_of(Tensor("x", datatype, shape, given_bytes), ())


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT8", [128]),
        ("UINT8", [-1]),
        ("UINT64", [-1]),
        ("INT64", [2**63]),
        ("INT32", [1.0]),
        ("INT32", [True]),
        ("FP32", [True]),
        ("FP64", ["1"]),
        ("BOOL", [1]),
        ("BYTES", [1]),
        ("BYTES", [b"a"]),
    ],
)
def test_a_value_of_another_datatype_is_named(datatype: str, data: list[Any]) -> None:
    """By its place in the data."""
    with pytest.raises(InvalidError) as raised:
        values_of(Tensor("x", datatype, (2,), [None, *data]), ("inputs", 0))
    assert raised.value.errors[0].loc == ("inputs", 0, "data", 1)


@pytest.mark.parametrize("shape", [None, 3, "22", [-1], [2.0], [True], ["2"], [[2]], [1] * 9])
def test_a_shape_is_a_list_of_a_few_sizes(shape: Any) -> None:
    """Anything else is refused, before it is multiplied out."""
    with pytest.raises(InvalidError) as raised:
        check_shape(("inputs", 0), shape)
    assert raised.value.errors[0].loc == ("inputs", 0, "shape")


def test_a_shape_that_overflows_is_too_large_for_its_data() -> None:
    """Sizes are multiplied without end."""
    shape = check_shape((), [2**63, 2**63, 2])
    for content in (b"", bytes(8), [1.0]):
        for datatype in DATATYPES:
            with pytest.raises(InvalidError):
                values_of(Tensor("x", datatype, shape, content), ())


def test_text_that_is_not_utf_8_is_refused() -> None:
    """Labels and categories are text."""
    with pytest.raises(InvalidError, match="UTF-8"):
        values_of(Tensor("x", BYTES, (1,), b"\x01\x00\x00\x00\xff"), ())
    with pytest.raises(InvalidError, match="0 or 1"):
        values_of(Tensor("x", BOOL, (1,), b"\x02"), ())
