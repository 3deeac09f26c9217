"""The open-loop sender: each request leaves at its scheduled time, whatever happened to the ones before it."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

Send = Callable[[int], Awaitable[str]]
"""Sends request i and says how it ended: the status code as text, ``timeout``, or the kind of a transport error."""
UNSENT = "unsent"
"""How a request ended that found no place in flight before its timeout."""


class Sample(NamedTuple):
    """One request. All times in seconds after the start of the run.

    Attributes:
        scheduled_s: When it was due.
        started_s: When it left; for one that never did, when it was given up.
        ended_s: When its answer was complete.
        late_s: How long after it could have left it did leave. Waiting for a place in flight is the server's doing
            and not counted here; what remains is the generator's own lag.
        outcome: Status code as text, ``timeout``, a transport error, or ``unsent``.
    """

    scheduled_s: float
    started_s: float
    ended_s: float
    late_s: float
    outcome: str


class Run(NamedTuple):
    """What one run saw.

    Attributes:
        samples: One per request, in the order of the schedule.
        in_flight_peak: Most requests under way at once.
        cpu_share: Processor time of this process over the run's wall time; near 1 the generator is out of breath.
    """

    samples: list[Sample]
    in_flight_peak: int
    cpu_share: float


def on_exact_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop that waits by ``select``, whose timeouts are exact: epoll rounds them up to whole milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


async def run_open_loop(at_s: Sequence[float], send: Send, *, in_flight_max: int, timeout_s: float) -> Run:
    """Send request i at ``at_s[i]`` seconds from now, at most ``in_flight_max`` at once.

    A request whose place does not come free within ``timeout_s`` of its due time is given up as ``unsent``, as
    a client would: an overloaded run ends on time. Time is the event loop's clock.

    Args:
        at_s: Due times, ascending.
        send: Must bound its own time by ``timeout_s`` and must not raise.
        in_flight_max: Bound on requests under way, >= 1.
        timeout_s: Patience of one request, > 0.
    """
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(in_flight_max)
    samples: list[Sample | None] = [None] * len(at_s)
    in_flight = peak = 0
    begin = loop.time()
    cpu_begin = time.process_time()
    free_s = 0.0  # when the last wait for a place ended: before that nothing could have left

    async def one(index: int, ready_s: float) -> None:
        nonlocal in_flight
        started_s = loop.time() - begin
        try:
            outcome = await send(index)
        finally:
            in_flight -= 1
            places.release()
        ended_s = loop.time() - begin
        samples[index] = Sample(at_s[index], started_s, ended_s, max(started_s - ready_s, 0.0), outcome)

    async with asyncio.TaskGroup() as tasks:
        for index, due_s in enumerate(at_s):
            wait_s = begin + due_s - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if places.locked():
                patience_s = max(begin + due_s + timeout_s - loop.time(), 0.0)
                try:
                    await asyncio.wait_for(places.acquire(), patience_s)
                except TimeoutError:
                    free_s = loop.time() - begin
                    samples[index] = Sample(due_s, free_s, free_s, 0.0, UNSENT)
                    continue
                free_s = loop.time() - begin
            else:
                await places.acquire()  # one is free, so this does not wait
            in_flight += 1
            peak = max(peak, in_flight)
            tasks.create_task(one(index, max(due_s, free_s)))
    wall_s = max(loop.time() - begin, 1e-9)
    cpu_share = (time.process_time() - cpu_begin) / wall_s
    return Run([sample for sample in samples if sample is not None], peak, cpu_share)
