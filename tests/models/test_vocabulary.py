"""Labels that streams name themselves: bytes and back, and who gets which slot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.types import Label
from models.vocabulary import LABEL_BYTES_MAX, assign, extended, init_vocabulary, names_of, written

LABELS = st.one_of(
    st.text(max_size=LABEL_BYTES_MAX // 4), st.integers(-(2**63), 2**63 - 1), st.booleans()
)  # fmt: skip
"""Any label: four bytes are the most that a character takes."""


@given(st.lists(LABELS, max_size=6, unique_by=lambda label: (type(label), label)))
def test_labels_of_any_kind_come_back_as_they_were(labels: list[Label]) -> None:
    """Strings, integers and booleans keep value and type, and ``1``, ``"1"`` and ``True`` are three."""
    (found,) = names_of(written(tuple(labels), 6)[None])
    assert [(type(label), label) for label in found] == [(type(label), label) for label in labels]


def test_new_labels_take_the_next_free_slots_in_order() -> None:
    """Known ones keep theirs; equal values of different kinds are different labels."""
    slots = assign(("b", 1), [True, "b", "1", 1, True], ways=4)
    np.testing.assert_array_equal(slots[:, 0], [2, 0, 3, 1, 2])
    assert extended(("b", 1), slots, [True, "b", "1", 1, True]) == ("b", 1, True, "1")
    assert names_of(init_vocabulary(2, 4)) == [(), ()]


def test_one_label_more_than_ways_is_named_with_its_row() -> None:
    """What is full stays as it is; rows that are not asked for take no slot."""
    with pytest.raises(InputError, match="named 2 already") as error:
        assign(("a",), ["a", "b", "c"], ways=2)
    assert error.value.loc == ("targets", 2)
    np.testing.assert_array_equal(assign(("a",), ["b", "c"], ways=2, rows=[1]), [[1]])


@pytest.mark.parametrize("label", [None, 1.5, ["a"], "é" * (LABEL_BYTES_MAX // 2 + 1)])
def test_what_is_no_label_is_refused(label: object) -> None:
    """Numbers with a fraction, lists and texts of too many bytes, even in rows that are not asked for."""
    with pytest.raises(InputError) as error:
        assign((), ["a", label], ways=3, rows=[0])
    assert error.value.loc == ("targets", 1)


def test_rows_without_their_labels_are_refused() -> None:
    """A caller that forgets the labels does not name slots wrongly."""
    with pytest.raises(ValueError, match="each row brings its own"):
        extended((), np.zeros((2, 1)), ["a"])
