"""The queue that makes ticks."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import Batcher
from service.errors import SaturatedError, UnavailableError
from service.threads import SWITCH_SECONDS, USUAL_SWITCH_SECONDS, Threads
from tests.service.http_case import run_async


class Recorder:
    """Work that remembers its ticks, doubles each item, and waits at a gate."""

    def __init__(self) -> None:
        self.ticks: list[list[int]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def work(self, items: list[int]) -> Sequence[int | Exception]:
        """Double."""
        self.ticks.append(items)
        self.begun.set()
        await self.gate.wait()
        return [ValueError(f"bad {item}") if item < 0 else 2 * item for item in items]


def made(
    work: Callable[[list[int]], Awaitable[Sequence[int | Exception]]],
    *,
    queue_items_max: int = 100,
    tick_items_max: int = 10,
    keyed: bool = False,
) -> Batcher[int, int]:
    """A batcher whose items, if keyed, have their last decimal as key."""
    return Batcher(
        "arithmetic",
        work,
        queue_items_max=queue_items_max,
        tick_items_max=tick_items_max,
        key=(lambda item: abs(item) % 10) if keyed else None,
    )


@run_async
async def test_every_item_gets_its_own_answer() -> None:
    """Answers and exceptions go to those who asked."""
    batcher = made(Recorder().work)
    batcher.start()
    answers = await asyncio.gather(*(batcher.put(item) for item in (1, -2, 3)), return_exceptions=True)
    assert answers[0] == 2
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 6
    await batcher.close()


@run_async
async def test_items_that_wait_share_a_tick() -> None:
    """While a tick is worked on the next one grows; an idle batcher does not wait for company."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = made(recorder.work)
    batcher.start()
    first = batcher.put(1)
    await recorder.begun.wait()
    rest = [batcher.put(item) for item in range(2, 15)]
    recorder.gate.set()
    await asyncio.gather(first, *rest)
    assert [len(tick) for tick in recorder.ticks] == [1, 10, 3]
    await batcher.close()


@run_async
async def test_a_tick_takes_a_key_once() -> None:
    """Items of one key come one after another, in the order in which they were put."""
    recorder = Recorder()
    batcher = made(recorder.work, keyed=True)
    futures = [batcher.put(item) for item in (11, 21, 31, 2, 12)]
    batcher.start()
    await asyncio.gather(*futures)
    assert recorder.ticks == [[11, 2], [21, 12], [31]]
    await batcher.close()


@run_async
async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """429 with whole seconds; what was taken is not touched, and there is room again afterwards."""
    recorder = Recorder()
    batcher = made(recorder.work, queue_items_max=3)
    futures = [batcher.put(item) for item in (1, 2, 3)]
    with pytest.raises(SaturatedError, match="3 requests are waiting for arithmetic") as caught:
        batcher.put(4)
    assert (caught.value.retry_after_s or 0) >= 1
    batcher.start()
    assert await asyncio.gather(*futures) == [2, 4, 6]
    assert await batcher.put(5) == 10
    await batcher.close()


@run_async
async def test_closing_finishes_what_waits_and_takes_no_more() -> None:
    """Nothing that was taken is left without an answer."""
    recorder = Recorder()
    batcher = made(recorder.work, tick_items_max=2)
    futures = [batcher.put(item) for item in range(7)]
    batcher.start()
    await batcher.close()
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(UnavailableError, match="stopping"):
        batcher.put(1)


@run_async
async def test_a_tick_that_fails_fails_its_items_only() -> None:
    """An exception of the work belongs to that tick; the next one is worked on."""

    async def work(items: list[int]) -> Sequence[int | Exception]:
        if 13 in items:
            raise RuntimeError("unlucky")
        return items

    batcher = made(work, tick_items_max=2)
    futures = [batcher.put(item) for item in (1, 13, 3, 4)]
    batcher.start()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError, int, int]
    await batcher.close()


@run_async
async def test_an_item_is_worked_on_after_its_client_left() -> None:
    """Whoever stops waiting does not stop the work, nor the tick of others."""
    recorder = Recorder()
    recorder.gate.clear()
    batcher = made(recorder.work)
    batcher.start()

    async def client() -> int:
        return await asyncio.shield(batcher.put(1))

    leaving, staying = asyncio.create_task(client()), asyncio.create_task(client())
    await recorder.begun.wait()
    leaving.cancel()
    recorder.gate.set()
    assert await staying == 2
    await batcher.close()
    assert sum(len(tick) for tick in recorder.ticks) == 2


@run_async
async def test_a_heavy_tick_takes_no_more() -> None:
    """Weight bounds a tick, so that a big batch delays others by one tick of its size at most."""
    recorder = Recorder()
    batcher: Batcher[int, int] = Batcher(
        "weights",
        recorder.work,
        queue_items_max=100,
        tick_items_max=100,
        tick_weight_max=10,
        weight=lambda item: item,
    )
    futures = [batcher.put(item) for item in (4, 4, 4, 50, 1, 9, 2)]
    batcher.start()
    await asyncio.gather(*futures)
    assert recorder.ticks == [[4, 4, 4], [50], [1, 9], [2]]
    await batcher.close()


@settings(max_examples=60, deadline=None)
@given(items=st.lists(st.integers(0, 999), max_size=60), tick_items_max=st.integers(1, 12))
def test_any_traffic_is_answered_once_and_in_the_order_of_its_key(items: list[int], tick_items_max: int) -> None:
    """Ticks hold each item exactly once, never two of a key, never too many, and keep the order of each key."""
    recorder: list[list[int]] = []

    async def scenario() -> list[int]:
        async def work(tick: list[int]) -> Sequence[int | Exception]:
            recorder.append(tick)
            return tick

        batcher = made(work, tick_items_max=tick_items_max, keyed=True)
        futures = [batcher.put(item) for item in items]
        batcher.start()
        answers = list(await asyncio.gather(*futures))
        await batcher.close()
        return answers

    assert asyncio.run(scenario()) == items
    flat = [item for tick in recorder for item in tick]
    for key in range(10):
        assert [item for item in flat if item % 10 == key] == [item for item in items if item % 10 == key]
    assert all(len({item % 10 for item in tick}) == len(tick) <= tick_items_max for tick in recorder)


@run_async
async def test_work_that_never_waits_leaves_the_loop_to_others_between_ticks() -> None:
    """A clock in the same loop moves on with every tick of a full queue."""
    turns, seen = 0, []

    async def clock() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work(items: list[int]) -> Sequence[int | Exception]:
        seen.append(turns)
        return items

    batcher = made(work, tick_items_max=1)
    batcher.start()
    other = asyncio.get_running_loop().create_task(clock())
    await asyncio.gather(*(batcher.put(item) for item in range(5)))
    other.cancel()
    assert len(seen) == 5
    assert all(later > earlier for earlier, later in pairwise(seen))
    await batcher.close()


@run_async
async def test_batchers_take_turns() -> None:
    """Beside one whose queue is full and whose work never waits, another's only item comes within three ticks."""
    order: list[str] = []

    async def busy(items: list[int]) -> Sequence[int | Exception]:
        order.append("busy")
        return items

    async def seldom(items: list[int]) -> Sequence[int | Exception]:
        order.append("seldom")
        return items

    first, second = made(busy, queue_items_max=500, tick_items_max=1), made(seldom)
    first.start()
    second.start()
    crowd = [first.put(item) for item in range(500)]
    for number in range(10):
        await crowd[20 * number]
        asked = len(order)
        assert await second.put(number) == number
        assert "seldom" in order[asked : asked + 4]
    await asyncio.gather(*crowd)
    for batcher in (first, second):
        await batcher.close()


@run_async
async def test_what_arrives_during_a_tick_comes_along_with_the_next() -> None:
    """Also what takes two turns of the loop to get from the socket into the queue."""
    ticks: list[list[int]] = []
    loop, late = asyncio.get_running_loop(), []

    def arrive() -> None:
        late.append(batcher.put(2))
        loop.call_soon(lambda: late.append(batcher.put(3)))

    async def work(items: list[int]) -> Sequence[int | Exception]:
        if not ticks:
            loop.call_soon(arrive)
        ticks.append(items)
        return items

    batcher = made(work)
    batcher.start()
    await batcher.put(1)
    await asyncio.gather(*late)
    await batcher.close()
    assert ticks == [[1], [2, 3]]


@run_async
async def test_threads_take_turns_more_often_while_one_learns() -> None:
    """And as ever afterwards, also where the work failed."""
    threads = Threads()

    def fail() -> float:
        raise ValueError("bad")

    assert await threads.learn(sys.getswitchinterval) == pytest.approx(SWITCH_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(USUAL_SWITCH_SECONDS)
    with pytest.raises(ValueError, match="bad"):
        await threads.learn(fail)
    assert sys.getswitchinterval() == pytest.approx(USUAL_SWITCH_SECONDS)
    threads.close()
