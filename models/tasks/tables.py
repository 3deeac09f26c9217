"""Data files read as tables: CSV, CSV.gz and Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from models.errors import DataError
from models.tasks.table import Column, IntArray, Table, cause, pick, some
from models.types import FloatArray, Label, ModelSpec, TaskKind

Kind: TypeAlias = Literal["numeric", "categorical"]

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "?")
"""What a CSV file may write for a missing value."""
CLASSES_MAX = 20
"""An integer target with at most this many distinct values is read as classes when the task is not stated."""


def read_table(
    files: Sequence[str | Path],
    *,
    target: str,
    stream_column: str | None = None,
    time_column: str | None = None,
    features: Sequence[str] | None = None,
    task: TaskKind | None = None,
    kinds: Mapping[str, Kind] | None = None,
    classes: Sequence[Label] | None = None,
) -> Table:
    """Read CSV, CSV.gz and Parquet files as one table.

    Rows are ordered by the time column; rows of the same time, and files without a time column, keep the order of the
    files. String and boolean columns are categorical (booleans as ``"True"`` and ``"False"``), all others numeric.

    Args:
        files: One or more files with the same columns.
        target: Column to predict.
        stream_column: Column that names each row's stream; without it all rows are one stream.
        time_column: Column to order by.
        features: Input columns; all that have no other role by default.
        task: Inferred when ``None``: classes for strings, booleans, and integers of at most 20 distinct values.
        kinds: Kinds of features where they are known already, as from a model.
        classes: Class labels where they are known already, as from a model.

    Returns:
        The table. Classes are sorted, or those given.

    Raises:
        DataError: A file or column is missing or cannot be read so, there are no rows, or a target is missing or not
            finite. The message names the file or column and says what to do.
    """
    frame = _read(files)
    name = ", ".join(Path(file).name for file in files)
    wanted = [("target", target), ("stream column", stream_column), ("time column", time_column)]
    if features is None:
        roles = {target, stream_column, time_column}
        features = [column for column in frame.columns if column not in roles]
    for role, column in [*wanted, *(("feature", feature) for feature in features)]:
        if column is not None and column not in frame.columns:
            listed = ", ".join(frame.columns)
            raise DataError(f"{name}: there is no column {column!r} for the {role}; the columns are {listed}")
    if target in features:
        raise DataError(f"{name}: {target!r} is the target and cannot be a feature too; leave it out of the features")
    if not features:
        raise DataError(f"{name}: no column is left as a feature; name at least one")
    if not frame.height:
        raise DataError(f"{name}: there are no rows below the header")
    streams, stream_names = _streams(frame, stream_column, name, Path(files[0]))
    task, reason = (task, "as stated") if task else _infer_task(frame[target])
    labels, found = _target(frame[target], name, task, classes)
    table = Table(
        name=name,
        task=task,
        task_reason=reason,
        columns={feature: _column(frame[feature], name, (kinds or {}).get(feature)) for feature in features},
        target_name=target,
        target=labels,
        classes=found,
        streams=streams,
        stream_names=stream_names,
        stream_column=stream_column,
        time_column=time_column,
    )
    return table if time_column is None else _in_order(table, frame[time_column])


def read_table_for(
    spec: ModelSpec,
    files: Sequence[str | Path],
    *,
    stream_column: str | None = None,
    time_column: str | None = None,
) -> Table:
    """Read files as a model expects them: its target, features, kinds and classes.

    The stream and time columns are those the model was trained with (``provenance``), unless they are given.

    Raises:
        DataError: As ``read_table``.
    """
    table = read_table(
        files,
        target=spec.target.name,
        stream_column=stream_column or spec.provenance.get("stream_column"),
        time_column=time_column or spec.provenance.get("time_column"),
        features=[feature.name for feature in spec.features],
        task=spec.task,
        kinds={feature.name: feature.kind for feature in spec.features},
        classes=spec.target.classes or None,
    )
    for feature in spec.features:
        column = table.columns[feature.name]
        lacks = np.isnan(column) if isinstance(column, np.ndarray) else np.array([value is None for value in column])
        if not feature.missing and lacks.any():
            raise DataError(
                f"{table.name}: {int(lacks.sum())} rows have no value for {feature.name!r}, which had none missing in "
                "training; drop these rows, or train on rows where it is missing too"
            )
    return table


def column_names(files: Sequence[str | Path]) -> list[str]:
    """Names of the columns of the first file.

    Raises:
        DataError: It cannot be read.
    """
    return _read(files[:1]).columns


def _read(files: Sequence[str | Path]) -> pl.DataFrame:
    if not files:
        raise DataError("no data file is given")
    frames = [_read_file(Path(file)) for file in files]
    for file, frame in zip(files, frames, strict=True):
        odd = set(frame.columns) ^ set(frames[0].columns)
        if odd:
            raise DataError(f"{file}: its columns differ from those of {files[0]} in {some(sorted(odd))}")
    try:
        return pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed")
    except PolarsError as error:
        raise DataError(f"the files cannot be joined: {cause(error)}; give each column one type") from None


def _read_file(file: Path) -> pl.DataFrame:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; correct its path")
    suffixes = [suffix.lower() for suffix in file.suffixes]
    try:
        if suffixes[-1:] in ([".parquet"], [".pq"]):
            return pl.read_parquet(file)
        if suffixes[-1:] == [".csv"] or suffixes[-2:] == [".csv", ".gz"]:
            return pl.read_csv(
                file.read_bytes(), null_values=list(MISSING), infer_schema_length=None, try_parse_dates=True
            )
    except (PolarsError, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({cause(error)}); is it a whole CSV or Parquet file?") from None
    raise DataError(f"{file}: its name does not end in .csv, .csv.gz or .parquet; convert it to one of these")


def _streams(
    frame: pl.DataFrame, stream_column: str | None, name: str, first_file: Path
) -> tuple[IntArray, tuple[str, ...]]:
    if stream_column is None:
        return np.zeros(frame.height, dtype=np.int64), (first_file.name.split(".")[0],)
    _refuse_null(frame[stream_column], name, "stream column")
    named = frame[stream_column].cast(pl.String)
    names = named.unique(maintain_order=True)
    codes = {stream: code for code, stream in enumerate(names)}
    return np.array([codes[stream] for stream in named], dtype=np.int64), tuple(names)


def _infer_task(series: pl.Series) -> tuple[TaskKind, str]:
    if series.dtype in (pl.String, pl.Boolean, pl.Categorical) or isinstance(series.dtype, pl.Enum):
        return "classification", f"{series.name!r} holds {'booleans' if series.dtype == pl.Boolean else 'strings'}"
    if series.dtype.is_integer():
        distinct = series.n_unique()
        if distinct <= CLASSES_MAX:
            return "classification", f"{series.name!r} holds integers with {distinct} distinct values"
        return "regression", f"{series.name!r} holds integers with {distinct} distinct values"
    return "regression", f"{series.name!r} holds numbers"


def _in_order(table: Table, times: pl.Series) -> Table:
    _refuse_null(times, table.name, "time column")
    order = times.to_frame("t").with_row_index("row").sort("t", maintain_order=True)["row"].to_numpy()
    return table._replace(
        columns={name: pick(column, order) for name, column in table.columns.items()},
        target=pick(table.target, order),
        streams=table.streams[order],
    )


def _target(
    series: pl.Series, name: str, task: TaskKind, known: Sequence[Label] | None
) -> tuple[FloatArray | list[Label], tuple[Label, ...]]:
    _refuse_null(series, name, "target")
    if task == "regression":
        values = _numbers(series, name, "target")
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise DataError(
                f"{name}: the target {series.name!r} is not finite in row {bad[0]}; correct or drop such rows"
            )
        return values, ()
    labels = _labels(series, name, textual=known is not None and all(isinstance(label, str) for label in known))
    if known is None:
        return labels, tuple(sorted(set(labels)))
    unknown = sorted({str(label) for label in set(labels) - set(known)})
    if unknown:
        listed = some([str(label) for label in known])
        raise DataError(f"{name}: the target {series.name!r} holds {some(unknown)}; the model's classes are {listed}")
    return labels, tuple(known)


def _labels(series: pl.Series, name: str, *, textual: bool) -> list[Label]:
    if series.dtype.is_float():
        if not (series == series.floor()).all():
            raise DataError(
                f"{name}: the target {series.name!r} holds fractions, which are no classes; state --task regression"
            )
        series = series.cast(pl.Int64)
    if not (series.dtype.is_integer() or series.dtype == pl.Boolean) or (textual and series.dtype != pl.Boolean):
        series = series.cast(pl.String)
    return cast("list[Label]", series.to_list())


def _column(series: pl.Series, name: str, kind: Kind | None) -> Column:
    textual = series.dtype in (pl.String, pl.Categorical, pl.Boolean) or isinstance(series.dtype, pl.Enum)
    empty = series.null_count() == len(series)
    if kind == "categorical" or (kind is None and textual and not empty):
        if series.dtype == pl.Boolean:
            return [None if value is None else str(value) for value in series]  # as JSON's booleans are encoded
        return cast("list[str | None]", series.cast(pl.String).to_list())
    values = _numbers(series, name, "feature")
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        where = f"{series.name!r} is infinite in row {infinite[0]}"
        raise DataError(f"{name}: the feature {where}; write nothing where it is missing")
    return values


def _numbers(series: pl.Series, name: str, role: str) -> FloatArray:
    if series.dtype.is_temporal():
        raise DataError(f"{name}: the {role} {series.name!r} holds dates; make it a number, or state it as time column")
    try:
        return series.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
    except PolarsError:
        raise DataError(
            f"{name}: the {role} {series.name!r} is read as a number but holds other values; "
            f"its type is {series.dtype}, correct the column or state another task"
        ) from None


def _refuse_null(series: pl.Series, name: str, role: str) -> None:
    missing = series.is_null()
    if missing.any():
        row = missing.arg_true()[0]
        raise DataError(f"{name}: the {role} {series.name!r} has no value in row {row}; fill in or drop such rows")
