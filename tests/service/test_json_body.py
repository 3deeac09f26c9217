"""Bodies are decoded once and refused with the place where they are wrong."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidError, MalformedError
from service.json_body import decode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_decode_reads_what_json_writes(value: object) -> None:
    """Every JSON document decodes to its value."""
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=40))
def test_decode_refuses_or_decodes_any_bytes(body: bytes) -> None:
    """No bytes raise anything but the two errors that a client may see."""
    with suppress(InvalidError, MalformedError):
        decode(body)


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "1" + "0" * 399 + ".5"]
)
@pytest.mark.parametrize("before", ["1, ", '"é", ', ""])
def test_decode_names_the_place_of_a_number_that_is_not_finite(number: str, before: str) -> None:
    """The row and the column of NaN, infinities and overlong numbers are in the error, the number is not."""
    body = f'{{"interval": 0.5, "inputs": [[{before}1.0], [{before}{number}]]}}'
    with pytest.raises(InvalidError) as caught:
        decode(body.encode())
    column = 1 if before else 0
    assert caught.value.errors[0].loc == ("inputs", 1, column)
    assert number not in caught.value.detail


def test_decode_names_a_place_by_feature() -> None:
    """In a row that is an object the place ends with the feature's name."""
    with pytest.raises(InvalidError) as caught:
        decode(b'{"inputs": [{"temperature": Infinity}]}')
    assert caught.value.errors[0].loc == ("inputs", 0, "temperature")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nan",
        b"[1,]",
        b"[1 1]",
        b"{'a': 1}",
        b'["\xff"]',
        b'["\\ud800"]',
        b"[1, -]",
        b"[NaN, x]",
        b"[Nope]",
        b"[1] // note",
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_decode_refuses_what_is_not_json(body: bytes) -> None:
    """The error says where reading stopped."""
    with pytest.raises((MalformedError, InvalidError)) as caught:
        decode(body)
    assert caught.value.detail


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":', b'{"inputs":[['])
@pytest.mark.parametrize("leaf", [b"", b"NaN", b"1"])
def test_decode_refuses_a_depth_bomb(unit: bytes, leaf: bytes) -> None:
    """A document nested a million deep costs no stack and is refused as malformed."""
    with pytest.raises(MalformedError):
        decode(unit * 1_000_000 + leaf)
