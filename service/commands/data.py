"""Data options as a user states them, made into tables and selections of rows."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from models import (
    DataError,
    Mask,
    ModelSpec,
    Table,
    column_names,
    join_tables,
    read_stream_names,
    read_table,
    read_table_for,
    rows_mask,
    streams_mask,
)
from service.playback import Served

STREAM_COLUMNS = ("acclimate_stream", "stream", "stream_id", "client", "series")
EXPORT_TIMES = ("committed_at", "acclimate_committed_at")
"""Order of the rows of an export: as the server learned them."""
TIME_COLUMNS = ("t", "time", "timestamp", "date", "datetime")
TARGET_COLUMNS = ("target", "label", "y")


def select(table: Table, rows: str | None, streams: Path | None) -> tuple[Mask | None, str]:
    """The rows that a user selects, and that selection in words; None for all rows.

    Raises:
        DataError: The selection cannot be read, or names what is not there.
    """
    if rows is not None:
        return rows_mask(table, rows), f"rows {rows}"
    if streams is not None:
        return streams_mask(table, read_stream_names(streams)), f"streams of {streams.name}"
    return None, ""


def table_for_model(
    spec: ModelSpec, files: Sequence[Path], stream_column: str | None, time_column: str | None
) -> Table:
    """The files as a bundle expects them; stream and time columns as stated, as in training, or by their usual names.

    Raises:
        DataError: The files do not fit the model.
    """
    names = column_names(files)
    taken = {feature.name for feature in spec.features} | {spec.target.name}
    time_columns = [*EXPORT_TIMES, spec.provenance.get("time_column"), *TIME_COLUMNS]
    return read_table_for(
        spec,
        files,
        stream_column=stream_column or _usual(names, taken, [spec.provenance.get("stream_column"), *STREAM_COLUMNS]),
        time_column=time_column or _usual(names, taken, time_columns),
    )


def tables_for_model(
    spec: ModelSpec, files: Sequence[Path], stream_column: str | None, time_column: str | None
) -> Table:
    """As ``table_for_model``, for files of different columns too.

    Files of the same columns are one stretch of time; the stretches follow one another as given, oldest first.

    Raises:
        DataError: The files do not fit the model.
    """
    stretches: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        stretches.setdefault(tuple(sorted(column_names([file]))), []).append(file)
    return join_tables([table_for_model(spec, same, stream_column, time_column) for same in stretches.values()])


def table_for_served(
    served: Served, files: Sequence[Path], target: str | None, stream_column: str | None, time_column: str | None
) -> Table:
    """The files as a served model expects them; columns as stated, as the server says, or by their usual names.

    Raises:
        DataError: The files do not fit the model.
    """
    names = column_names(files)
    taken = set(served.kinds)
    found = target or _usual(names, taken, [served.columns.get("target"), *TARGET_COLUMNS])
    if found is None:
        raise DataError(f"{files[0]}: which column is the target? State it with --target; there are {', '.join(names)}")
    return read_table(
        files,
        target=found,
        stream_column=stream_column or _usual(names, taken, [served.columns.get("stream_column"), *STREAM_COLUMNS]),
        time_column=time_column
        or _usual(names, taken, [*EXPORT_TIMES, served.columns.get("time_column"), *TIME_COLUMNS]),
        features=list(served.kinds),
        task=served.task,
        kinds=served.kinds,
        classes=served.classes or None,
    )


def _usual(names: Sequence[str], taken: set[str], candidates: Iterable[str | None]) -> str | None:
    return next((name for name in candidates if name in names and name not in taken), None)
