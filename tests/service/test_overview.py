"""What goes on, at a glance: streams by state, samples of what was done, of one worker and of several."""

import json
from typing import Any

import httpx
import pytest

from service.metrics import SECONDS, Metrics
from service.overview import SAMPLE_SECONDS, SAMPLES_MAX, Trace
from service.routes import overview as route
from service.store import MemoryStore
from tests.service.crew_case import crew_of, names_of
from tests.service.http_case import NOW, assert_problem, run_async, serving
from tests.service.streams_case import batches
from tests.service.test_following import Live


async def teach(client: httpx.AsyncClient, stream: str, count: int = 1) -> None:
    """Create a stream and teach it batches of two rows."""
    (await client.put(f"/v1/streams/{stream}", json={"model": "reg"})).raise_for_status()
    for inputs, targets in batches(count):
        body = {"inputs": inputs, "targets": targets}
        (await client.post(f"/v1/streams/{stream}/feedback", json=body)).raise_for_status()


async def overview(client: httpx.AsyncClient) -> Any:
    """As it is answered."""
    return (await client.get("/v1/overview")).raise_for_status().json()


def test_a_sample_has_what_was_done_since_the_one_before() -> None:
    """Counters are told apart by their labels, times by their buckets; what was before the first is in none."""
    metrics = Metrics(process=False)
    metrics.labels.labels("learned").inc(7)
    trace = Trace(metrics.stated)
    metrics.labels.labels("learned").inc(3)
    metrics.labels.labels("duplicate").inc(5)
    metrics.predictions.labels("adapted").inc(2)
    metrics.predictions.labels("initial").inc(4)
    for kind in ("drift", "warning", "warning", "reset"):
        metrics.events.labels(kind).inc()
    metrics.learning.observe(SECONDS[0])
    metrics.learning.observe(SECONDS[2])
    metrics.commits.observe(2 * SECONDS[-1])
    trace.take(NOW + 0.02)
    trace.take(NOW + SAMPLE_SECONDS - 0.02)
    busy, idle = trace.since(0.0)
    assert (busy.learned, busy.predicted, busy.drifts, busy.warnings) == (3, 6, 1, 2)
    assert busy.learning == [1, 0, 1] + [0] * (len(SECONDS) - 2)
    assert busy.commits == [0] * len(SECONDS) + [1]
    assert (idle.learned, idle.predicted, sum(idle.learning), sum(idle.commits)) == (0, 0, 0, 0)
    assert [busy.at, idle.at] == [NOW, NOW + SAMPLE_SECONDS]
    assert trace.since(NOW) == [idle]


def test_a_request_that_is_traced_is_no_matter() -> None:
    """Its trace goes with a histogram's bucket."""
    metrics = Metrics(process=False)
    trace = Trace(metrics.stated)
    metrics.request("/v1/models", "GET", 200, 0.01, "4bf92f3577b34da6a3ce929d0e0e4736")
    metrics.labels.labels("learned").inc(3)
    trace.take(NOW)
    assert [sample.learned for sample in trace.since(0.0)] == [3]


def test_samples_are_kept_for_an_hour() -> None:
    """The oldest make room."""
    trace = Trace(Metrics(process=False).stated)
    for number in range(SAMPLES_MAX + 2):
        trace.take(float(number * SAMPLE_SECONDS))
    assert len(trace.since(-1.0)) == SAMPLES_MAX
    assert trace.since(-1.0)[0].at == 2.0 * SAMPLE_SECONDS


@run_async
async def test_streams_are_counted_by_state_and_model_and_the_latest_events_shown() -> None:
    """Events latest first; what another tenant has is not among it."""
    async with serving() as (client, streams):
        await teach(client, "s1", 11)
        await teach(client, "s2")
        (await client.post("/v1/streams/s1/reset")).raise_for_status()
        (await client.post("/v1/streams/s2/reset")).raise_for_status()
        streams.watch.trace.take(NOW)
        found = await overview(client)
        assert sum(found["states"].values()) == found["hot"] == 2
        assert found["models"] == [{"model": "reg", "version": 1, "streams": 2}]
        assert [(event["stream"], event["kind"]) for event in found["events"][:2]] == [("s2", "reset"), ("s1", "reset")]
        assert [sample["learned"] for sample in found["samples"]] == [24]
        assert len(found["samples"][0]["learning"]) == len(found["bucket_seconds"]) + 1


class CountingStore(MemoryStore):
    """A memory store that tells how often it was asked to count."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies = 0

    def tally(self) -> Any:
        """Counted."""
        self.tallies += 1
        return super().tally()


@run_async
async def test_streams_are_not_counted_anew_for_everybody_who_looks() -> None:
    """However many ask, since to count takes as long as there are streams."""
    store = CountingStore()
    async with serving(store=store) as (client, _):
        for _ in range(5):
            await overview(client)
        assert store.tallies == 1


@run_async
async def test_an_overview_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples first, then only those that are new, as soon as there is an event."""
    monkeypatch.setattr(route, "PAUSE_SECONDS", 0.0)
    async with serving() as (client, streams):
        await teach(client, "s")
        streams.watch.trace.take(NOW)
        live = Live(client, "/v1/overview")
        blocks = live.events()
        assert await anext(blocks) == {"retry": "2000"}
        first = await anext(blocks)
        assert first["event"] == "overview"
        assert [sample["at"] for sample in json.loads(first["data"])["samples"]] == [NOW]
        streams.watch.trace.take(NOW + SAMPLE_SECONDS)
        (await client.post("/v1/streams/s/reset")).raise_for_status()
        second = json.loads((await anext(blocks))["data"])
        assert [sample["at"] for sample in second["samples"]] == [NOW + SAMPLE_SECONDS]
        assert second["events"][0]["kind"] == "reset"
        await live.close()


@run_async
async def test_a_stream_is_followed_until_it_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, again when it has changed, and that it is gone."""
    monkeypatch.setattr("service.routes.streams.LOOK_SECONDS", 0.001)
    async with serving() as (client, _):
        assert_problem(await client.get("/v1/streams/s", headers={"Accept": "text/event-stream"}), 404)
        await teach(client, "s")
        live = Live(client, "/v1/streams/s")
        blocks = live.events()
        assert await anext(blocks) == {"retry": "2000"}
        first = await anext(blocks)
        assert json.loads(first["data"]) == (await client.get("/v1/streams/s")).json()
        (await client.post("/v1/streams/s/reset")).raise_for_status()
        assert json.loads((await anext(blocks))["data"])["stream_version"] == 2
        (await client.delete("/v1/streams/s")).raise_for_status()
        assert (await anext(blocks))["event"] == "deleted"
        await live.close()


@run_async
async def test_any_worker_tells_of_all() -> None:
    """States, streams in memory and samples of the same interval add up; events are in the order of their times."""
    async with crew_of() as workers:
        for number, worker in enumerate(workers):
            (name,) = names_of(number, 1)
            await teach(worker.client, name, number + 1)
            (await worker.client.post(f"/v1/streams/{name}/reset")).raise_for_status()
            worker.streams.watch.trace.take(NOW)
        workers[1].streams.watch.trace.take(NOW + SAMPLE_SECONDS)
        for worker in workers:
            found = await overview(worker.client)
            assert sum(found["states"].values()) == found["hot"] == 2
            assert found["models"] == [{"model": "reg", "version": 1, "streams": 2}]
            assert [(sample["at"], sample["learned"]) for sample in found["samples"]] == [(NOW, 6), (NOW + 5, 0)]
            assert sum(found["samples"][0]["learning"]) == 5
            assert len(found["events"]) == 2
