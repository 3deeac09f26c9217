"""``acclimate export``: the labelled rows that a server has logged, as Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from models import ModelSpec, read_bundle, read_stream_names
from service.commands.console import CommandError, out, progress_bar
from service.commands.database import stated_database
from service.keys import DEFAULT_TENANT
from service.payload import decode_feedback
from service.shards import read_layout
from service.store import (
    STATE_KINDS,
    Database,
    DatabaseReader,
    Entry,
    ModelRecord,
    Reader,
    StoreReader,
    StreamRecord,
)
from service.tenants import folder_of

CHUNK_ROWS = 20_000
"""Rows that are held as Python values before they become columns."""
HEAD = {
    "stream": pl.String(),
    "revision": pl.Int64(),
    "row": pl.Int64(),
    "committed_at": pl.Datetime("us", "UTC"),
    "time": pl.Float64(),
    "id": pl.String(),
    "model_version": pl.Int64(),
}
"""Columns that say where a row comes from; see ``docs/training.md``."""


def run(
    data_dir: Path,
    model: str | None,
    streams: Path | None,
    since: str | None,
    file: Path,
    tenant: str = DEFAULT_TENANT,
    store: str | None = None,
) -> None:
    """Write the logged rows of a model's streams, those of a tenant, out of a directory or of a database.

    Raises:
        CommandError: No such model, no rows, or the file cannot be written.
        ConfigurationError: There is no store.
    """
    if not file.resolve().parent.is_dir():
        raise CommandError(f"{file}: there is no such folder; make it first, or choose another --out")
    start = parse_since(since)
    wanted = None if streams is None else set(read_stream_names(streams))
    with ExitStack() as stack:
        database = stated_database(store)
        readers = [stack.enter_context(closing(each)) for each in _readers(data_dir, database, tenant)]
        record = _model(readers[0].models(), model, data_dir if database is None else database.place())
        spec = read_bundle(readers[0].bundle(record.name, record.version), f"model {record.name}").spec
        stored = [(reader, each) for reader in readers for each in reader.streams(record.name)]
        chosen = [(reader, each) for reader, each in stored if wanted is None or each.stream in wanted]
        found = [each for _, each in chosen]
        missing = sorted((wanted or set()) - {each.stream for each in found})
        if missing:
            raise CommandError(
                f"model {record.name} has no stream {missing[0]!r}; name streams of it, or leave --streams"
            )
        frame = _frame(spec, chosen, start)
    if not frame.height:
        raise CommandError(
            f"no logged rows of model {record.name} are selected; feed rows first, or choose an earlier --since"
        )
    _write(frame, file)
    seen = sum(each.rows_seen for each in found)
    out.print(
        f"wrote {file}: {frame.height:,} rows of {frame[_head(spec)['stream']].n_unique():,} streams of model "
        f"{record.name}, of {seen:,} rows learned in all (older ones leave the log in time)",
        soft_wrap=True,
    )


def _readers(data_dir: Path, database: Database | None, tenant: str) -> Iterator[Reader]:
    """Of what a tenant has, each opened when the one before is somebody's to close."""
    if database is not None:
        yield DatabaseReader(database.of_tenant(tenant))
        return
    for each in read_layout(data_dir).directories:
        yield StoreReader(folder_of(each, tenant))


def parse_since(text: str | None) -> float:
    """Epoch seconds of an ISO date or time (UTC where it names no zone) or of a number; -inf for nothing.

    Raises:
        CommandError: It is neither.
    """
    if text is None:
        return float("-inf")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--since {text!r} is no time; write one like 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _model(models: Sequence[ModelRecord], name: str | None, place: Path | str) -> ModelRecord:
    """The active version of the named model, or of the only one."""
    active = {each.name: each for each in models if each.active}
    if name is None and len(active) == 1:
        return next(iter(active.values()))
    listed = ", ".join(sorted(active)) or "none"
    if name is None:
        raise CommandError(f"which model? State one with --model; there are {listed}")
    if name not in active:
        raise CommandError(f"{place}: there is no model {name!r}; there are {listed}")
    return active[name]


def _head(spec: ModelSpec) -> dict[str, str]:
    """What the leading columns are called: their own names, unless a feature or the target has one of them."""
    taken = {feature.name for feature in spec.features} | {spec.target.name}
    return {name: f"acclimate_{name}" if name in taken else name for name in HEAD}


def _frame(spec: ModelSpec, streams: Sequence[tuple[Reader, StreamRecord]], since: float) -> pl.DataFrame:
    """All selected rows, in the order of their commits."""
    specs: dict[int, ModelSpec] = {}
    schema = _schema(spec)
    chunks, rows = [pl.DataFrame(schema=schema)], list[tuple[Any, ...]]()
    with progress_bar("streams") as bar:
        task = bar.add_task("export", total=len(streams))
        for reader, record in streams:
            if record.model_version not in specs:
                bundle = reader.bundle(record.model, record.model_version)
                specs[record.model_version] = read_bundle(bundle, f"model {record.model}").spec
            for entry in reader.entries(record, since):
                rows += _rows(spec, specs[record.model_version], record, entry)
                if len(rows) >= CHUNK_ROWS:
                    chunks.append(pl.DataFrame(rows, schema=schema, orient="row"))
                    rows = []
            bar.advance(task)
    chunks.append(pl.DataFrame(rows, schema=schema, orient="row"))
    head = _head(spec)
    return pl.concat(chunks).sort([head["committed_at"], head["stream"], head["row"]])


def _rows(spec: ModelSpec, own: ModelSpec, record: StreamRecord, entry: Entry) -> Iterator[tuple[Any, ...]]:
    """The rows of a log entry in the columns of the active version; ``own`` is the stream's version."""
    if not entry.rows or entry.kind in STATE_KINDS:  # rows of an import were learned elsewhere
        return
    logged = decode_feedback(entry.payload).rows
    at, names = datetime.fromtimestamp(entry.at, UTC), [feature.name for feature in own.features]
    for number, (sent, target) in enumerate(zip(logged.inputs, logged.targets, strict=True)):
        by_name = sent if isinstance(sent, Mapping) else dict(zip(names, sent, strict=True))
        yield (
            record.stream,
            entry.revision,
            entry.first_row + number,
            at,
            None if logged.times is None else logged.times[number],
            None if logged.ids is None else logged.ids[number],
            record.model_version,
            *(_value(feature.kind, by_name.get(feature.name)) for feature in spec.features),
            _target(spec, target),
        )


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    return str(value) if kind == "categorical" else float(value)


def _target(spec: ModelSpec, target: Any) -> Any:
    if spec.task == "classification":
        return str(target) if _class_type(spec) == pl.String() else target
    return [float(value) for value in target] if isinstance(target, list) else float(target)


def _schema(spec: ModelSpec) -> dict[str, Any]:
    head = _head(spec)
    features = {each.name: pl.String() if each.kind == "categorical" else pl.Float64() for each in spec.features}
    number = pl.List(pl.Float64()) if spec.outputs > 1 else pl.Float64()
    target = _class_type(spec) if spec.task == "classification" else number
    return {head[name]: kind for name, kind in HEAD.items()} | features | {spec.target.name: target}


def _class_type(spec: ModelSpec) -> Any:
    """Labels keep their type where all have the same."""
    kinds = {type(label) for label in spec.target.classes}
    return {bool: pl.Boolean(), int: pl.Int64()}.get(kinds.pop(), pl.String()) if len(kinds) == 1 else pl.String()


def _write(frame: pl.DataFrame, file: Path) -> None:
    partial = file.with_name(f"{file.name}.partial")
    try:
        frame.write_parquet(partial)
        partial.replace(file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written ({error.strerror}); choose another --out") from None
