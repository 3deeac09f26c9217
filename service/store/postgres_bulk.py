"""Many rows in one statement: a round trip costs more than the rows, so that each table is asked once a transaction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from service.store.beside import COLUMNS

_CASTS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"bigint": int, "float8": float, "text": str, "bytea": bytes}
)
_COLUMNS_OF: Mapping[str, str] = MappingProxyType(
    {
        "bigint": "stream, revision, first_row, rows, row, change_row, rows_used, number, key, model_version,"
        " stream_version, rows_seen, oldest, before_row, kept_max",
        "float8": "at, statistic, threshold, shift, created_at, updated_at, before",
        "bytea": "payload, previous, chain, digest, data, body, beside",
        "text": "id, kind, status, detector, action, feature, upload, name, model, config, metadata, state, last_drift",
    }
)
TYPES: Mapping[str, str] = MappingProxyType(
    {name: kind for kind, names in _COLUMNS_OF.items() for name in names.split(", ")}
)
"""Of columns by name, in all tables but those where the name says otherwise."""
_OWN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"answers": {**TYPES, "key": "text"}, "events": {**TYPES, "id": "bigint"}}
)
"""Of tables in which a name means something else."""


def unnest(columns: str, alias: str = "w", types: Mapping[str, str] = TYPES) -> str:
    """A table out of one array a column, to be given by ``arrays``."""
    marks = ", ".join(f"%b::{types[column]}[]" for column in _names(columns))
    return f"unnest({marks}) AS {alias}({columns})"


def arrays(columns: str, rows: Iterable[Sequence[Any]], types: Mapping[str, str] = TYPES) -> list[list[Any]]:
    """One array a column.

    A database has one type a column, so that numbers are made what the column is, as SQLite does.
    """
    casts = [_CASTS[types[column]] for column in _names(columns)]
    table = list(rows)
    return [[None if row[place] is None else cast(row[place]) for row in table] for place, cast in enumerate(casts)]


def insert(db: Any, table: str, columns: str, rows: Sequence[Sequence[Any]], tail: str = "") -> None:
    """Insert rows; ``tail`` follows the statement."""
    if not rows:
        return
    types = _OWN.get(table, TYPES)
    statement = f"INSERT INTO {table} ({columns}) SELECT * FROM {unnest(columns, types=types)} {tail}"
    db.execute(statement, arrays(columns, rows, types))


def delete(
    db: Any, table: str, columns: str, condition: str, rows: Sequence[Sequence[Any]], source: str = ""
) -> Any | None:
    """Delete rows of summed tables for which a condition on a row ``w`` of what is given holds.

    Args:
        db: The connection.
        table: Where from, called ``t`` in the condition.
        columns: Of ``w``.
        condition: On ``t`` and ``w``.
        rows: Of ``w``.
        source: What follows ``w``, for instance a lateral query.

    Returns:
        What went, the stream's key and the columns that are summed, to be fetched; ``None`` where nothing is given.
    """
    if not rows:
        return None
    types = _OWN.get(table, TYPES)
    told = ", ".join(f"t.{column}" for column in _names(COLUMNS[table]))
    statement = f"DELETE FROM {table} t USING {unnest(columns, types=types)}{source} WHERE {condition}"
    return db.execute(f"{statement} RETURNING t.stream, {told}", arrays(columns, rows, types))


def _names(columns: str) -> list[str]:
    return [column.strip() for column in columns.split(",")]
