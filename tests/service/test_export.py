"""Logged rows as Parquet, and the way round: serve, learn, export, continue, serve the new version."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from models import bundle_checksum, continuing, read_bundle, write_bundle
from models.types import Feature, Lags, ModelSpec
from service.app import create_app
from service.commands import export
from service.commands.console import CommandError
from service.config import Settings
from service.store import DamagedError, SqliteStore, StoreReader
from tests.models.examples import small_model, write_rows
from tests.service.http_case import run_async
from tests.service.streams_case import PROBE, Clock, batches, crash_copy, learn, opened
from tests.service.test_cli import _run, assert_one_line


async def fill(data_dir: Path, clock: Clock | None = None) -> None:
    """Two streams of a regression model, one of a classification model, with ids, times, late labels and a reset."""
    clock = clock or Clock()
    async with opened(SqliteStore(data_dir), clock=clock) as streams:
        for stream in ("s", "t"):
            await streams.put(stream, "reg", None, None)
        await streams.put("c", "cls", None, None)
        await streams.feedback("s", PROBE, [1.0, 2.0, 3.0], ["x", "y", "z"], [10.0, 11.0, 12.0])
        await streams.reset("s")
        clock.now += 100
        await streams.feedback("t", [{"b": 4.0, "a": 3.0}], [5.0])
        await streams.predict("s", [[7.0, 8.0]], None, ["late"])
        clock.now += 100
        await streams.labels("s", ["late"], [9.0])
        await streams.feedback("c", PROBE, ["yes", "no", "yes"])


def exported(folder: Path, *words: object) -> pl.DataFrame:
    """What the command writes."""
    file = folder / "rows.parquet"
    result = _run("export", "--data-dir", folder / "data", "--out", file, *words)
    assert result.exit_code == 0, result.output
    assert not list(folder.glob("*.partial"))
    return pl.read_parquet(file)


def files(folder: Path, pattern: str) -> list[Path]:
    """What is there."""
    return list(folder.glob(pattern))


@run_async
async def test_rows_come_out_as_they_were_sent(tmp_path: Path) -> None:
    """In the order of commits: lists and objects, ids and times where there were any, late labels with their inputs."""
    clock = Clock()
    start = clock.now
    await fill(tmp_path / "data", clock)
    frame = exported(tmp_path, "--model", "reg")
    assert frame.columns == ["stream", "revision", "row", "committed_at", "time", "id", "model_version", "a", "b", "y"]
    assert frame["stream"].to_list() == ["s", "s", "s", "t", "s"]
    assert frame["row"].to_list() == [0, 1, 2, 0, 3]
    assert frame["revision"].to_list() == [1, 1, 1, 1, 3]
    assert frame["id"].to_list() == ["x", "y", "z", None, "late"]
    assert frame["time"].to_list() == [10.0, 11.0, 12.0, None, None]
    assert frame.select("a", "b").rows() == [*map(tuple, PROBE), (3.0, 4.0), (7.0, 8.0)]
    assert frame["y"].to_list() == [1.0, 2.0, 3.0, 5.0, 9.0]
    assert [moment.timestamp() - start for moment in frame["committed_at"]] == [0, 0, 0, 100, 200]
    assert exported(tmp_path, "--model", "cls")["y"].to_list() == ["yes", "no", "yes"]


@run_async
async def test_streams_and_time_select(tmp_path: Path) -> None:
    """By a file of names, by ISO time or epoch seconds; what selects nothing is an error that says so."""
    clock = Clock()
    start = clock.now
    await fill(tmp_path / "data", clock)
    names = tmp_path / "names.txt"
    names.write_text("t\n")
    assert exported(tmp_path, "--model", "reg", "--streams", names)["stream"].to_list() == ["t"]
    assert exported(tmp_path, "--model", "reg", "--since", start + 100)["y"].to_list() == [5.0, 9.0]
    assert exported(tmp_path, "--model", "reg", "--since", "2023-11-14T22:16:30Z")["y"].to_list() == [9.0]
    names.write_text("nobody\n")
    common = ("export", "--data-dir", tmp_path / "data", "--out", tmp_path / "o.parquet")
    assert_one_line(_run(*common), "which model", "--model", "cls, reg")
    assert_one_line(_run(*common, "--model", "nope"), "no model 'nope'", "cls, reg")
    assert_one_line(_run(*common, "--model", "reg", "--streams", names), "no stream 'nobody'")
    assert_one_line(_run(*common, "--model", "reg", "--since", "2100-01-01"), "earlier --since")
    assert_one_line(_run(*common, "--model", "reg", "--since", "yesterday"), "2026-01-31")
    assert_one_line(_run("export", "--data-dir", tmp_path, "--out", tmp_path / "o"), "no store", "--data-dir")
    assert not files(tmp_path, "o*")


@run_async
async def test_a_store_in_use_and_one_that_was_killed_are_read(tmp_path: Path) -> None:
    """Beside a server that has it open and locked, and from what a kill leaves; rows committed so far are there."""
    store = SqliteStore(tmp_path / "data")
    async with opened(store) as streams:
        await streams.put("s", "reg", None, None)
        await learn(streams, "s", batches(5))
        assert exported(tmp_path, "--model", "reg").height == 10
        await learn(streams, "s", batches(1))
        assert exported(tmp_path, "--model", "reg").height == 12
        crash_copy(tmp_path / "data", "killed").close()
        (tmp_path / "killed").rename(tmp_path / "aside")
    reader = StoreReader(tmp_path / "aside")
    assert [record.rows_seen for record in reader.streams("reg")] == [12]
    reader.close()


@run_async
async def test_an_altered_row_is_reported_and_not_exported(tmp_path: Path) -> None:
    """The chain of digests is followed here too."""
    await fill(tmp_path / "data")
    database = tmp_path / "data" / "streams.sqlite3"
    content = database.read_bytes()
    assert content.count(b'"targets":[5.0]') == 1
    database.write_bytes(content.replace(b'"targets":[5.0]', b'"targets":[6.0]'))
    reader = StoreReader(tmp_path / "data")
    damaged = next(record for record in reader.streams("reg") if record.stream == "t")
    with pytest.raises(DamagedError, match="altered"):
        list(reader.entries(damaged, 0.0))
    reader.close()
    words = ("export", "--data-dir", tmp_path / "data", "--model", "reg", "--out", tmp_path / "o.parquet")
    assert_one_line(_run(*words), "stream t is damaged")


def test_columns_give_way_to_features_of_their_names() -> None:
    """A feature called stream or time keeps its name."""
    spec: ModelSpec = small_model().spec
    taken = ModelSpec(**{**_fields(spec), "features": (Feature("stream"), Feature("time", "categorical"))})
    assert export._head(taken)["stream"] == "acclimate_stream"
    assert list(export._schema(taken))[:5] == ["acclimate_stream", "revision", "row", "committed_at", "acclimate_time"]
    with pytest.raises(CommandError, match="no time"):
        export.parse_since("soon")
    assert export.parse_since("1970-01-02") == 86_400.0
    assert export.parse_since("1970-01-02T01:00:00+01:00") == 86_400.0


def _fields(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


@asynccontextmanager
async def served(data_dir: Path, bundle: Path, *, activate: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """The application on the embedded store, spoken to in process."""
    app = create_app(Settings(data_dir=data_dir, models={"m": bundle}, activate=activate))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def rows_of(streams: int, rows: int) -> list[tuple[str, list[list[float]], list[float]]]:
    """Batches of streams that share one curve, which the first version does not know."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(rows):
        inputs = rng.uniform(-2, 2, size=(3, 2)).round(4)
        made.append((f"s{number % streams}", inputs.tolist(), (np.sin(2 * inputs[:, 0]) * inputs[:, 1]).tolist()))
    return made


@run_async
async def test_serve_export_continue_and_serve_the_new_version(tmp_path: Path) -> None:
    """What a server has learned from makes version 2, which names its parent, is better, and is activated."""
    first, second, data = tmp_path / "one.safetensors", tmp_path / "two.safetensors", tmp_path / "data"
    first.write_bytes(write_bundle(small_model(lags=Lags((1,), ()), name="m")))
    async with served(data, first) as client:
        for stream in ("s0", "s1"):
            assert (await client.put(f"/v1/streams/{stream}", json={"model": "m"})).status_code == 201
        for stream, inputs, targets in rows_of(2, 150):
            body = {"inputs": inputs, "targets": targets}
            assert (await client.post(f"/v1/streams/{stream}/feedback", json=body)).status_code == 200
        assert exported(tmp_path).height == 450
    rows = tmp_path / "rows.parquet"
    older = write_rows(tmp_path / "older.csv", 60)
    result = _run("train", "--continue", first, "--data", older, rows, "--budget", 0.1, "--out", second)
    assert result.exit_code == 0, result.output
    assert "new version" in result.stdout
    spec = read_bundle(second).spec
    assert spec.provenance["parent"]["checksum"] == bundle_checksum(read_bundle(first))
    assert spec.provenance["rows"] == 510
    assert not files(tmp_path, "*.checkpoint")
    async with served(data, second, activate=True) as client:
        known = (await client.get("/v1/models/m")).json()
        assert (known["versions"], known["active_version"]) == ([1, 2], 2)
        assert (await client.put("/v1/streams/new", json={"model": "m"})).json()["model_version"] == 2
        body = {"inputs": [[0.5, 1.0]], "targets": [0.8]}
        assert (await client.post("/v1/streams/new/feedback", json=body)).json()["model_version"] == 2
        again = await client.post("/v1/streams/s0/feedback", json=body)
        assert (again.status_code, again.json()["rows_seen"]) == (200, 226)


def test_a_version_that_is_not_better_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one line, unless forced; the model itself is never overwritten; what stays cannot be stated."""
    monkeypatch.setattr(continuing, "ITERATIONS", 0)  # so that the new version is the old one
    first, second = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    first.write_bytes(write_bundle(small_model()))
    words = ("train", "--continue", first, "--data", write_rows(tmp_path / "rows.csv", 300))
    assert_one_line(_run(*words, "--out", first), "the model to continue", "--out")
    assert_one_line(_run(*words, "--out", second), "not better on the held-out end", "--force")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("two")] == []
    assert _run(*words, "--out", second, "--force").exit_code == 0
    assert read_bundle(second).spec.provenance["parent"]["checksum"] == bundle_checksum(small_model())
    for extra in (("--target", "y"), ("--search",), ("--lag-target", 2), ("--algorithm", "maml"), ("--features", "a")):
        assert _run(*words, *extra).exit_code == 2
    assert _run("train", "--continue", first).exit_code == 2


@run_async
async def test_labels_that_streams_named_come_out_as_strings(tmp_path: Path) -> None:
    """A column has one type, and labels of open classes may be of any kind."""
    model = small_model("classification", name="open", ways=3)
    async with opened(SqliteStore(tmp_path / "data"), given={"open": model}) as streams:
        await streams.put("s", "open", None, None)
        await streams.feedback("s", PROBE, ["left", 7, True])
    assert exported(tmp_path)["y"].to_list() == ["left", "7", "True"]
