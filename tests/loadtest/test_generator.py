"""The open-loop sender, on an event loop whose clock is a number: nothing here waits."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

from loadtest.generator import UNSENT, Run, Send, run_open_loop


class _InstantSelector(selectors.SelectSelector):
    """Finds nothing ready and lets the clock jump over the wait instead."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "the loop waits for something that never comes"
            self.now_s += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only while everyone waits."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        """The virtual clock, in seconds."""
        return self._instant.now_s


def virtually(make: Callable[[], Awaitable[Run]]) -> Run:
    """Run a coroutine in virtual time."""

    async def main() -> Any:
        return await make()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main())
    assert isinstance(result, Run)
    return result


def answering(*service_s: float, outcome: str = "200") -> Send:
    """A server that takes so long for request i; the last figure counts for all further ones."""

    async def send(index: int) -> str:
        await asyncio.sleep(service_s[min(index, len(service_s) - 1)])
        return outcome

    return send


def due(count: int, spacing_s: float) -> list[float]:
    """Due times at constant spacing."""
    return [index * spacing_s for index in range(count)]


def test_sender_keeps_its_schedule_while_answers_are_slow() -> None:
    """Requests leave when they are due although none of the earlier ones has been answered."""
    run = virtually(lambda: run_open_loop(due(10, 0.1), answering(5.0), in_flight_max=100, timeout_s=10.0))
    assert [round(sample.started_s, 6) for sample in run.samples] == [round(at, 6) for at in due(10, 0.1)]
    assert run.in_flight_peak == 10


def test_latency_counts_from_the_due_time_through_a_stall() -> None:
    """One stall of a second delays all requests that were due in it, and each of them says so."""
    run = virtually(lambda: run_open_loop(due(10, 0.1), answering(1.0, 0.0), in_flight_max=1, timeout_s=10.0))
    latencies = [sample.ended_s - sample.scheduled_s for sample in run.samples]
    assert [round(value, 3) for value in latencies] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


def test_waiting_for_a_place_is_not_the_generators_lag() -> None:
    """A full server makes requests leave late; the generator is not to blame for it."""
    run = virtually(lambda: run_open_loop(due(10, 0.1), answering(1.0, 0.0), in_flight_max=1, timeout_s=10.0))
    assert max(sample.late_s for sample in run.samples) < 1e-9
    assert max(sample.started_s - sample.scheduled_s for sample in run.samples) > 0.8


def test_in_flight_requests_never_pass_their_bound() -> None:
    """However slow the server, no more than the bound is under way at once."""
    under_way, peak = 0, 0

    async def send(index: int) -> str:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep(0.5 + index / 100)
        under_way -= 1
        return "200"

    run = virtually(lambda: run_open_loop(due(50, 0.01), send, in_flight_max=4, timeout_s=60.0))
    assert peak == run.in_flight_peak == 4
    assert [sample.outcome for sample in run.samples] == ["200"] * 50


def test_requests_that_find_no_place_in_time_are_given_up() -> None:
    """With all places taken for good, the run ends one timeout after the last due time."""
    run = virtually(lambda: run_open_loop(due(5, 0.1), answering(100.0), in_flight_max=1, timeout_s=2.0))
    assert [sample.outcome for sample in run.samples] == ["200"] + [UNSENT] * 4
    assert [round(sample.ended_s - sample.scheduled_s, 6) for sample in run.samples[1:]] == [2.0] * 4


def test_a_generator_that_is_held_up_reports_its_own_lag() -> None:
    """Work that blocks the event loop shows as lag of the generator, not of the server."""

    async def blocking(index: int) -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._instant.now_s += 0.05  # as a computation would that does not yield
        return f"20{index % 2}"

    run = virtually(lambda: run_open_loop(due(10, 0.01), blocking, in_flight_max=100, timeout_s=10.0))
    assert run.samples[0].late_s < 1e-9
    assert run.samples[-1].late_s > 0.1
