"""Rows out of whatever holds them: lists, NumPy, pandas, Polars. None of these is imported here."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


def rows_of(data: Any) -> list[Any]:
    """Rows as JSON has them: lists of values, or objects by name for frames. NaN becomes null, a missing value.

    Args:
        data: A list of rows (lists or mappings), a NumPy array (rows, features) or (rows,), a pandas or Polars frame.

    Raises:
        TypeError: It is none of these.
    """
    if hasattr(data, "to_dicts"):  # Polars
        return [_plain(row) for row in data.to_dicts()]
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        return [_plain(row) for row in data.to_dict("records")]
    if hasattr(data, "tolist"):  # NumPy
        values = data.tolist()
        return [_plain(row if isinstance(row, list) else [row]) for row in values]
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return [_plain(row) for row in data]
    raise TypeError(f"rows are lists, arrays or frames, not {type(data).__name__}")


def values_of(data: Any) -> list[Any]:
    """Labels, ids or times, one a row: a list, a NumPy array, a pandas or Polars column."""
    if hasattr(data, "to_list"):
        data = data.to_list()
    elif hasattr(data, "tolist"):
        data = data.tolist()
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise TypeError(f"labels are lists, arrays or columns, not {type(data).__name__}")
    return [_plain(value) for value in data]


def lines_of(data: Any, targets: Any = None, *, target: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of an upload: ``{"input", "target", "id"?, "time"?}``.

    Args:
        data: An iterable of such rows, which may have no end; or rows as ``rows_of`` takes them.
        targets: Their labels.
        target: The column of a frame that has the labels.

    Raises:
        TypeError: It is not clear what the labels are.
    """
    if target is not None:
        for row in rows_of(data):
            if not isinstance(row, dict) or target not in row:
                raise TypeError(f"there is no column {target!r} in the rows")
            yield {"input": {name: value for name, value in row.items() if name != target}, "target": row[target]}
        return
    if targets is not None:
        for row, label in zip(rows_of(data), values_of(targets), strict=True):
            yield {"input": row, "target": label}
        return
    for row in data:
        if not isinstance(row, Mapping) or "target" not in row:
            raise TypeError('send rows like {"input": …, "target": …}, or rows and labels, or a frame and target=NAME')
        yield _plain(row)


def chunked(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    """Some at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value
