"""Fairness and hostile clients: rates of what is sent, what is above target, what an attack's connections meet."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from typing import Any

import pytest

from loadtest import fairness
from loadtest.fairness import BYTES_PER_SECOND, OVER, REQUESTS_PER_SECOND, Turn, attacks
from loadtest.hostile import __main__ as hostile
from loadtest.hostile.attacks import ATTACKS, Attack, Fate, client
from loadtest.open_loop import Offered
from tests.service.http_case import run_async


def offered(milliseconds: float, status: int = 200) -> Offered:
    """A hundred requests that took as long."""
    found = Offered(100.0, 1.0)
    for _ in range(100):
        found.latency.record(milliseconds / 1e3)
    found.statuses[status] = 100
    return found


def test_a_tenant_sends_twice_its_share_by_either_measure() -> None:
    """Requests of both kinds together, or bytes."""
    sent = attacks([b"p"], [b"f"], [b"x" * 1_000])
    assert sum(load.rate for load in sent["many small"]) == OVER * REQUESTS_PER_SECOND
    assert [load.rate * 1_000 for load in sent["few large"]] == [OVER * BYTES_PER_SECOND]


@pytest.mark.parametrize(("beside", "status", "missed"), [(1.9, 200, 0), (2.2, 200, 4), (1.0, 429, 1)])
def test_what_a_tenant_waits_beside_another_has_a_target(beside: float, status: int, missed: int) -> None:
    """Of the median over turns, for each kind and quantile; and everything it asks is answered 200."""
    turns = [
        (
            Turn({kind: offered(5.0) for kind in fairness.KINDS}, []),
            Turn({kind: offered(5.0 * factor, status) for kind in fairness.KINDS}, [offered(1.0), offered(1.0, 429)]),
        )
        for factor in (beside / 2, beside, 9.0)
    ]
    result = fairness.result_of("few large", turns)
    assert (result["answered"], result["refused"]) == (300, 300)
    assert len(fairness.missed_of(result)) == missed
    assert len(fairness.lines(result)) == 4


def hostile_result(**other: Any) -> dict[str, Any]:
    """An attack that did no harm, but for what is stated."""
    turns = [(offered(5.0), offered(6.0))] * 3
    fates = [{"longest_seconds": 2.4, "closed_by_server": 9}] * 3
    return hostile.result_of("slow heads", turns, fates, [300.0, 310.0, 311.0, 311.0]) | other


@pytest.mark.parametrize(
    ("other", "missed"),
    [
        ({}, None),
        ({"ratios": [1.0, 2.5, 2.1]}, "p99"),
        ({"not_200": 1}, "answers"),
        ({"resident_mb": [300.0, 310.0, 340.0]}, "memory"),
        ({"fates": [{"longest_seconds": 9.0, "closed_by_server": 9}]}, "time of connections"),
        ({"fates": [{"longest_seconds": 0.0, "closed_by_server": 0}]}, "time of connections"),
    ],
)
def test_what_an_attack_does_has_a_target(other: dict[str, Any], missed: str | None) -> None:
    """Others' p99, their answers, the memory, and when connections are closed."""
    result = hostile_result(**other)
    assert hostile.missed_of(result) == ([] if missed is None else [f"slow heads: {missed}"])
    assert statistics.median(result["ratios"]) > 0
    assert hostile.line(hostile_result()).startswith(
        "| 500 slow heads | 5.0 | 6.0 | 1.20 (1.20 to 1.20) | 300, 310, 311 |"
    )


@run_async
async def test_an_attack_s_client_counts_what_it_meets() -> None:
    """Answers by status, and how long connections were open that the server closed; then it comes again."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" if served == 1 else b"")
        writer.close()

    async def sends(_model: str) -> AsyncIterator[bytes]:
        yield b"GET\n"
        await asyncio.Event().wait()

    fate = Fate()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    task = asyncio.create_task(client(server.sockets[0].getsockname()[1], Attack(1, sends), "m", fate, 0.0))
    async with asyncio.timeout(30):
        while len(fate.lives) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    task.cancel()
    server.close()
    assert fate.statuses == {400: 1, 0: 1}
    assert fate.as_json()["closed_by_server"] == 2


@run_async
async def test_each_attack_sends_something() -> None:
    """Whatever it is, it begins at once."""
    for name, attack in ATTACKS.items():
        sent = attack.sends("sinusoid")
        assert isinstance(await anext(sent), bytes), name
        await sent.aclose()  # type: ignore[attr-defined]  # a generator, each of them
