"""A table: labelled rows in time order, streams, features with missing values, one target; and parts of it."""

from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from models.errors import DataError
from models.types import FloatArray, Label, TaskKind, Value

Column: TypeAlias = FloatArray | list[str | None]
IntArray: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Table(NamedTuple):
    """Labelled rows in global time order.

    Attributes:
        name: Names of the files, without folders.
        task: ``regression`` or ``classification``.
        task_reason: Why it is that task, for a message to the user.
        columns: Feature columns in feature order: float64 with NaN where missing, or a list of strings with ``None``.
        target_name: The target's column.
        target: (rows,) float64 for regression, a list of class labels for classification.
        classes: Class labels, sorted (classification).
        streams: (rows,) int64 index into ``stream_names``.
        stream_names: Names of the streams, in order of first appearance.
        stream_column: Column the streams came from.
        time_column: Column the order came from.
        part: Which part of the files this is, as the user stated it (``rows 0:0.3``); empty for all of it.
    """

    name: str
    task: TaskKind
    task_reason: str
    columns: dict[str, Column]
    target_name: str
    target: FloatArray | list[Label]
    classes: tuple[Label, ...]
    streams: IntArray
    stream_names: tuple[str, ...]
    stream_column: str | None = None
    time_column: str | None = None
    part: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.streams)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(self.columns)

    def values(self, index: Any = slice(None)) -> list[list[Value]]:
        """Rows as Python values in feature order, ``None`` where missing: what an engine or an HTTP request takes.

        Args:
            index: Rows, as a slice or an integer or boolean array; all rows by default.
        """
        picked = [pick(column, index) for column in self.columns.values()]
        lists = [_nullable(column) if isinstance(column, np.ndarray) else column for column in picked]
        return [list(row) for row in zip(*lists, strict=True)]

    def targets(self, index: Any = slice(None)) -> list[Label]:
        """Targets as Python values: numbers or class labels."""
        picked = pick(self.target, index)
        labels: list[Label] = picked.tolist() if isinstance(picked, np.ndarray) else picked
        return labels

    def take(self, mask: Mask, part: str = "") -> "Table":
        """The rows where ``mask`` (rows,) holds, in the same order; streams without rows are dropped.

        Raises:
            DataError: No row is left.
        """
        index = np.flatnonzero(mask)
        if not len(index):
            raise DataError(f"{self.name}: no rows are left of {part or 'the selection'}; select a larger part")
        codes, streams = np.unique(self.streams[index], return_inverse=True)
        return self._replace(
            columns={name: pick(column, index) for name, column in self.columns.items()},
            target=pick(self.target, index),
            streams=streams.astype(np.int64),
            stream_names=tuple(self.stream_names[code] for code in codes),
            part=part or self.part,
        )


def join_tables(tables: Sequence[Table]) -> Table:
    """Tables of the same features and target, one after the other in time; a stream's name means the same in all.

    Raises:
        DataError: Features, target or classes differ.
    """
    first = tables[0]
    for table in tables[1:]:
        if (table.task, table.features, table.classes) != (first.task, first.features, first.classes):
            raise DataError(f"{table.name} and {first.name} cannot be joined: their features or classes differ")
    names = tuple(dict.fromkeys(name for table in tables for name in table.stream_names))
    codes = {name: code for code, name in enumerate(names)}
    return first._replace(
        name=", ".join(table.name for table in tables),
        columns={name: _chain([table.columns[name] for table in tables]) for name in first.columns},
        target=_chain([table.target for table in tables]),
        streams=np.concatenate([np.array([codes[n] for n in t.stream_names])[t.streams] for t in tables]),
        stream_names=names,
    )


def _chain(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in part]


def rows_mask(table: Table, text: str) -> Mask:
    """Rows selected by a range of fractions of the table's rows in time order.

    Args:
        table: The table.
        text: ``"0:0.3"`` is the first 30%, ``"0.3:"`` the rest; a bound b is the row ⌊b·rows⌋.

    Returns:
        (rows,) bool.

    Raises:
        DataError: The text is not such a range.
    """
    start_text, colon, stop_text = text.partition(":")
    try:
        start, stop = float(start_text or 0), float(stop_text or 1)
    except ValueError:
        start, stop = 0.0, 0.0
    if not colon or not 0 <= start < stop <= 1:
        raise DataError(f"rows {text!r} is not a range of fractions between 0 and 1; write one like 0:0.3 or 0.3:")
    position = np.arange(table.rows)
    tiny = 1e-9  # 0.29 * 100 is 28.999999999999996
    return (position >= floor(start * table.rows + tiny)) & (position < floor(stop * table.rows + tiny))


def read_stream_names(file: str | Path) -> list[str]:
    """Stream names from a file: a JSON list, or text with one name a line.

    Raises:
        DataError: The file is missing, not text, or holds no names.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot read the list of streams ({cause(error)})") from None
    if text.lstrip().startswith(("[", "{", '"')):
        try:
            names = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{file}: not valid JSON ({error}); write a list of stream names") from None
        if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
            raise DataError(f"{file}: the JSON is not a list of stream names; write one like " + '["shop-1", "shop-2"]')
        found = [str(name) for name in names]
    else:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise DataError(f"{file}: the list of streams is empty")
    return found


def streams_mask(table: Table, names: Sequence[str]) -> Mask:
    """Rows of the named streams.

    Returns:
        (rows,) bool.

    Raises:
        DataError: A stream is not in the table.
    """
    unknown = sorted(set(names) - set(table.stream_names))
    if unknown:
        raise DataError(
            f"{table.name}: there is no stream {some(unknown)}; "
            + (f"the streams are {some(table.stream_names)}" if table.stream_column else "state the stream column")
        )
    codes = [code for code, name in enumerate(table.stream_names) if name in set(names)]
    return np.isin(table.streams, codes)


def some(names: Sequence[str], most: int = 12) -> str:
    """The first names of a list as text."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def cause(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or type(error).__name__).strip().splitlines()[0][:160]


def pick(column: Any, index: Any) -> Any:
    """Entries of an array or a list by a slice or an integer or boolean array."""
    if isinstance(column, np.ndarray) or isinstance(index, slice):
        return column[index]
    index = np.asarray(index)
    return [column[i] for i in (np.flatnonzero(index) if index.dtype == np.bool_ else index)]


def _nullable(values: FloatArray) -> list[float | None]:
    listed: list[float | None] = values.tolist()
    for row in np.flatnonzero(np.isnan(values)):
        listed[row] = None
    return listed
