"""Every scenario does to a real server what it says, and leaves nothing behind on one that lasts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from loadtest.options import Options
from loadtest.scenarios import SCENARIOS, own_settings
from loadtest.schedule import ScheduleError
from loadtest.scheduled import asked, asked_cold
from loadtest.server import Server, serving
from loadtest.target import Place
from tests.service.http_case import run_async
from tests.service.http_case import serving as in_memory

SHORT = Options(rate=50.0, seconds=0.4, warmup=0.1, streams=4, labelled=2, batch=4)
IN_MEMORY = Options(model="reg", rate=200.0, seconds=0.1, warmup=0.05, streams=3, labelled=2)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of one's own that has little memory and a short queue."""
    with serving((), own_settings(hot_streams=16)) as running:
        yield running


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_answered_and_leaves_nothing_behind(name: str, server: Server) -> None:
    """Its answers are 200, or 429 of an overload, its latencies are all there, and its streams are gone."""
    report = SCENARIOS[name](Place(server.url, server.cpu_seconds), SHORT)
    assert report.scenario == name
    assert report.outcomes.get("200") == report.ok > 0
    assert set(report.outcomes) <= ({"200", "429"} if name == "overload" else {"200"})
    assert len(report.latency) == report.ok or name == "overload"
    assert report.latency.at(1.0) > 0.0
    assert httpx.get(f"{server.url}/v1/streams", trust_env=False).json()["items"] == []


def test_an_upload_tells_rows_a_second_and_their_cost(server: Server) -> None:
    """Both of the part that is not held to a rate."""
    figures = SCENARIOS["upload"](Place(server.url, server.cpu_seconds), SHORT).figures
    assert figures["rows_per_second"] > 0.0
    assert figures["cpu_us_row"] >= 0.0


def test_an_overload_offers_three_times_the_peak(server: Server) -> None:
    """What was refused is told with whether it said when to come back; health was asked meanwhile."""
    report = SCENARIOS["overload"](Place(server.url), SHORT)
    assert report.rate_asked == pytest.approx(3 * report.figures["peak_per_second"], abs=0.01)
    assert report.figures["goodput_share"] > 0.0
    assert report.figures["retry_after_share"] == 1.0 or "429" not in report.outcomes


def test_every_scenario_is_documented() -> None:
    """In a row of the table that says what is done."""
    text = (Path(__file__).parents[2] / "docs/performance.md").read_text("utf-8")
    rows = "".join(line for line in text.splitlines() if line.startswith("| `"))
    assert [name for name in SCENARIOS if f"`{name}`" not in rows] == []


@run_async
async def test_cold_streams_are_out_of_memory_when_they_are_asked() -> None:
    """Each exactly once, after so many others have learned that the server had to let it go."""
    met: list[tuple[str, bool]] = []
    async with in_memory(hot_streams_max=8) as (client, streams):
        inner = client._transport

        class Watching(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                path = request.url.path
                if path.startswith("/v1/streams/") and path.endswith("/predict"):
                    stream = path.split("/")[3]
                    met.append((stream, streams._hot.peek(stream) is not None))
                return await inner.handle_async_request(request)

        report = await asked_cold("cold", Place("http://test", transport=Watching()), IN_MEMORY)
        assert [hot for _, hot in met] == [False] * 30
        assert len({stream for stream, _ in met}) == 30
        assert (report.scheduled, report.ok) == (20, 20)
        assert (await client.get("/v1/streams")).json()["items"] == []


@run_async
async def test_streams_of_a_server_of_one_s_own_are_left() -> None:
    """It goes anyway; each has learned its rows before it is asked."""
    async with in_memory() as (client, _):
        place = Place("http://test", lasting=False, transport=client._transport)
        report = await asked("predict", place, IN_MEMORY, feedback_share=0.0, streams=3, zipf=0.0)
        left = (await client.get("/v1/streams")).json()["items"]
        assert [stream["rows_seen"] for stream in left] == [2, 2, 2]
        assert report.outcomes == {"200": 20}
        assert np.isnan(report.figures["cpu_ms"])  # nobody can tell


@run_async
async def test_cold_streams_must_have_learned() -> None:
    """Otherwise there is nothing to bring back."""
    with pytest.raises(ScheduleError, match="--labelled"):
        await asked_cold("cold", Place("http://test"), Options(labelled=0))
