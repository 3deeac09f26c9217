"""What Prometheus reads."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics, exposition
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import run_async, serving

ROWS = {"inputs": [[0.5, -1.0], [1.0, 1.0]], "targets": [1.0, 2.0], "ids": ["a", "b"]}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample by its name and labels; each once."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> Any:
    """One sample."""
    return samples(text)[f"acclimate_{name}", frozenset(labels.items())]


async def work(client: Any, stream: str) -> None:
    """Two predictions of two rows, two rows of feedback, the same again, an unknown label, a reset."""
    await client.put(f"/v1/streams/{stream}", json={"model": "reg"})
    for path in (f"streams/{stream}", "models/reg"):
        await client.post(f"/v1/{path}/predict", json={"inputs": ROWS["inputs"]})
    for _ in range(2):
        await client.post(f"/v1/streams/{stream}/feedback", json=ROWS)
    await client.post(f"/v1/streams/{stream}/labels", json={"labels": [{"id": "z", "target": 1.0}]})
    await client.post(f"/v1/streams/{stream}/reset")


@run_async
async def test_what_was_done_is_counted() -> None:
    """Rows, labels, events, requests by route and status, commits, ticks; what is in memory and waits now."""
    async with serving() as (client, _):
        await work(client, "s3cr3t")
        answer = await client.get("/metrics")
    text = answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value(text, "predicted_rows_total", by="adapted") == 2
    assert value(text, "predicted_rows_total", by="initial") == 2
    assert [value(text, "labelled_rows_total", outcome=name) for name in ("learned", "duplicate", "unknown")] == [
        2,
        2,
        1,
    ]
    assert value(text, "events_total", kind="reset") == 1
    feedback = {"route": "/v1/streams/{stream}/feedback", "method": "POST", "code": "200"}
    assert value(text, "http_request_duration_seconds_count", **feedback) == 2
    assert value(text, "commit_duration_seconds_count") == 3
    assert value(text, "learning_tick_streams_sum") == 4
    assert value(text, "streams", state="hot") == 1
    assert value(text, "queue_requests", queue="learning") == 0
    assert "s3cr3t" not in text


@run_async
async def test_workers_are_told_apart_in_one_answer() -> None:
    """Whichever is asked; each metric once, each sample with its worker."""
    async with crew_of() as workers:
        for worker in range(2):
            await work(workers[worker].client, names_of(worker, 1)[0])
        texts = [(await worker.client.get("/metrics")).text for worker in workers]
    for text in texts:
        for number in ("0", "1"):
            assert value(text, "labelled_rows_total", outcome="learned", worker=number) == 2
        assert text.count("# TYPE acclimate_events_total counter") == 1


def test_a_trace_stays_with_its_request_from_worker_to_worker() -> None:
    """As JSON carries it; OpenMetrics shows it beside the bucket that the request fell into."""
    metrics = Metrics()
    metrics.request("/v1/x", "GET", 200, 0.003, "4bf92f3577b34da6a3ce929d0e0e4736")
    stated = orjson.loads(orjson.dumps(metrics.stated()))
    lines = exposition([({"worker": "1"}, stated)], openmetrics=True).decode().splitlines()
    (line,) = (line for line in lines if "trace_id" in line)
    assert 'le="0.005"' in line
    assert '1.0 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.003 ' in line
    assert lines[-1] == "# EOF"


def test_every_metric_is_documented() -> None:
    """By its name, in the page on operations."""
    page = Path("docs/operations.md").read_text("utf-8")
    names = [name for name, *_ in Metrics().stated() if not name.startswith("process_")]
    assert len(names) > 8
    assert not [name for name in names if f"`{name}" not in page]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
@run_async
async def test_prometheus_finds_nothing_to_complain_about() -> None:
    """``promtool check metrics``: names, units, help, types."""
    async with serving() as (client, _):
        await work(client, "s")
        text = (await client.get("/metrics")).text
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
