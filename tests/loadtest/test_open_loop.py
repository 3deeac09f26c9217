"""The light open-loop client: it does not wait, counts from the time that was due, and says when it is the limit."""

import asyncio

import pytest

from loadtest import latency, overload
from loadtest.histogram import Histogram
from loadtest.open_loop import Offered, offer

REQUEST = b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"


async def offered(
    statuses: list[bytes], rate: float, *, connections: int, hold: asyncio.Event | None = None
) -> Offered:
    """A rate on a server that answers with these statuses in turn, once ``hold`` is set."""
    answered, ended = 0, asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            if hold is not None:
                await hold.wait()
            writer.write(b"HTTP/1.1 " + statuses[answered % len(statuses)] + b"Content-Length: 2\r\n\r\nok")
            answered += 1
        writer.close()
        await writer.wait_closed()
        ended.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        if hold is not None:
            asyncio.get_running_loop().call_later(0.05, hold.set)
        found = await offer(port, [REQUEST], rate, 0.1, connections=connections, warm_seconds=0.0, watch=lambda: 7)
        for _ in range(connections):
            await ended.acquire()
        return found


def test_answers_are_counted_by_status() -> None:
    """Those that say when to come back, too."""
    statuses = [b"200 OK\r\n", b"429 Slow\r\nRetry-After: 1\r\n"]
    found = asyncio.run(offered(statuses, 200.0, connections=4))
    assert set(found.statuses) == {200, 429}
    assert abs(found.statuses[200] - found.statuses[429]) <= 1
    assert found.retry_after == found.statuses[429]
    assert found.goodput == found.statuses[200] / 0.1
    assert 0 < len(found.latency) <= 20
    assert found.watched == [7, 7]


def test_what_a_slow_server_holds_up_counts_from_its_time() -> None:
    """One connection, an answer after 50 ms: the requests that waited for it were late by as much."""
    found = asyncio.run(offered([b"200 OK\r\n"], 400.0, connections=1, hold=asyncio.Event()))
    assert len(found.latency) > 1
    assert found.latency.at(1.0) >= 40.0


def test_a_late_generator_says_so() -> None:
    """If one request in a hundred is."""
    found = Offered(100.0, 1.0, late=Histogram.of([0.0001] * 99 + [0.01] * 2))
    assert found.limited
    assert not Offered(100.0, 1.0, late=Histogram.of([0.0001] * 1_000 + [0.01])).limited


def test_latencies_are_set_beside_the_bare_route_s_turn_by_turn() -> None:
    """The median of the ratios."""
    turns = [
        (Offered(1.0, 1.0, Histogram.of([0.001] * 99 + [0.01])), Offered(1.0, 1.0, Histogram.of([0.002 * turn] * 100)))
        for turn in (1, 2, 3)
    ]
    result = latency.result_of(500.0, turns)
    assert result["ratios"]["p50"] == pytest.approx(4.0, rel=0.01)
    assert latency.lines(result)[-2] == "| p50 | 1.00 | 4.00 | 4.00 | 2.5 |"


def test_an_overload_is_held_to_every_target() -> None:
    """Each that is missed is named."""
    idle = Offered(1.0, 1.0, probes=Histogram.of([0.001]))
    over = Offered(300.0, 1.0, probes=Histogram.of([0.004]), retry_after=120, watched=[100 * 2**20, 102 * 2**20])
    over.statuses.update({200: 90, 429: 120})
    kept = overload.result_of(100.0, idle, over)
    assert overload.missed_of(kept) == []
    assert "| learned, per s (share of the peak) | 90 (0.90) | 0.8 |" in overload.lines(kept)
    wrong = kept | {
        "goodput": 70.0,
        "refused_with_retry_after": 0.5,
        "others": {"500": 1},
        "health_ms": [1.0, 6.0],
        "resident_mb": [100.0, 120.0],
    }
    assert len(overload.missed_of(wrong)) == 5
