"""Several servers on one database: whichever is asked, a stream is one stream."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from models import write_bundle
from models.types import Lags
from service.config import Settings
from service.errors import UnavailableError
from service.idempotency import asked_once
from service.store import Create, Done, MemoryStore, PostgresStore
from service.streams import Streams
from service.types import Learned
from tests.checks import postgres
from tests.checks.stores import append, event
from tests.models.examples import small_model
from tests.service.http_case import run_async
from tests.service.streams_case import PROBE, Batch, Clock, all_events, batches, learn, models, opened, predictions
from tests.service.test_webhooks import URL, World, until


@asynccontextmanager
async def servers(
    count: int = 2, *, clock: Clock | None = None, world: World | None = None, **limits: Any
) -> AsyncIterator[list[Streams]]:
    """Servers over one database, each with streams in memory of its own; closed where a test has not done so."""
    place = postgres.database()
    crew: list[Streams] = []
    try:
        for _ in range(count):
            calls = world.calls if world else None
            settings = Settings(data_dir=Path("unused"), **limits)
            crew.append(Streams(settings, PostgresStore(place), models(), clock or Clock(), calls=calls))
            await crew[-1].start()
        yield crew
    finally:
        for streams in crew:
            if streams._ready:
                await streams.close()
        postgres.give_back(place)


@run_async
async def test_servers_that_take_turns_learn_as_one_does() -> None:
    """Each finds that its state is stale, loads the stream anew and learns on: revisions, rows, events, predictions."""
    given = batches(14, rows=8, jump=10)
    async with opened(MemoryStore()) as alone, servers() as (first, second):
        await alone.put("s", "reg")
        await first.put("s", "reg")
        for number, batch in enumerate(given):
            expected = (await learn(alone, "s", [batch]))[0]
            found = (await learn((first, second)[number % 2], "s", [batch]))[0]
            assert (found.stream_version, found.rows_seen, found.state) == (number + 1, 8 * number + 8, expected.state)
        assert await predictions(second, "s") == await predictions(alone, "s")
        told = [(event.revision, event.kind, event.change_row) for event in await all_events(alone, "s")]
        assert told
        assert [(event.revision, event.kind, event.change_row) for event in await all_events(first, "s")] == told


async def insist(streams: Streams, batch: Batch) -> Learned:
    """Feed a batch, and again where others were quicker each time: then nothing of it was taken."""
    while True:
        try:
            return await streams.feedback("s", *batch)
        except UnavailableError:
            continue


@run_async
async def test_a_stream_that_several_servers_teach_at_once_takes_every_batch_once() -> None:
    """One commit each revision, whoever makes it: nothing is lost, nothing is learned twice."""
    given = batches(12)
    async with servers(3) as crew:
        await crew[0].put("s", "reg")
        answers = await asyncio.gather(*(insist(crew[number % 3], batch) for number, batch in enumerate(given)))
        assert sorted(answer.stream_version for answer in answers) == list(range(1, 13))
        info = await crew[1].get("s")
        assert (info.stream_version, info.rows_seen) == (12, 24)


def test_servers_whose_ticks_share_streams_all_get_through() -> None:
    """Whatever the order of their operations: each tick is committed, and of those that meet one wins, by stream."""
    place = postgres.database()
    crew = [PostgresStore(place) for _ in range(3)]
    names = [f"s{number}" for number in range(8)]
    barrier = threading.Barrier(len(crew))

    def work(server: int) -> int:
        won = 0
        store, order = crew[server], names[::-1] if server == 1 else names
        for number in range(10):
            barrier.wait(30)
            store.write([Create(f"{name}.{number}", "m", 1, {}, {}, 1.0) for name in order])
            found = {record.stream: record for record, _ in store.page("", None, 1_000, "")}
            mine = [found[f"{name}.{number}"] for name in order]
            events = [event(record) for record in mine]
            answers = store.write([append(r, ids=(), events=[e]) for r, e in zip(mine, events, strict=True)])
            won += sum(isinstance(answer, Done) for answer in answers)
        return won

    with ThreadPoolExecutor(len(crew)) as pool:
        won = list(pool.map(work, range(len(crew))))
    assert sum(won) >= 10 * len(names)
    records = [record for record, _ in crew[0].page("", None, 1_000, "")]
    assert sum(record.stream_version for record in records) == sum(won) == crew[0].last_event()
    for record in records:
        assert crew[0].load(record.stream) is not None
    for store in crew:
        store.close()
    postgres.give_back(place)


@run_async
async def test_no_server_answers_from_what_another_has_moved_on() -> None:
    """A prediction, a look and a file are of the latest commit, also where the server has an older state in memory."""
    one, two = batches(2)
    async with servers() as (first, second):
        await first.put("s", "reg")
        await learn(first, "s", [one])
        await learn(second, "s", [two])
        assert (await first.predict("s", PROBE)).stream_version == 2
        assert await predictions(first, "s") == await predictions(second, "s")
        await second.reset("s")
        assert (await first.get("s")).stream_version == 3
        await second.reset("s")
        await first.history.export("s")
        assert first._hot._table["s"].record.stream_version == 4
        await second.delete("s")
        await second.put("s", "reg")
        assert (await first.predict("s", PROBE)).stream_version == 0


@run_async
async def test_a_stream_may_be_trusted_for_a_while() -> None:
    """Within the time that is set nobody is asked: a prediction may be as old as that, a commit never."""
    clock = Clock()
    async with servers(store_trust_seconds=5.0, clock=clock) as (first, second):
        await first.put("s", "reg")
        one, two, three = batches(3)
        await first.predict("s", PROBE)
        await learn(second, "s", [one])
        assert (await first.predict("s", PROBE)).stream_version == 0
        clock.now += 5.0
        assert (await first.predict("s", PROBE)).stream_version == 1
        await learn(second, "s", [two])
        assert (await learn(first, "s", [three]))[0].stream_version == 3


@run_async
async def test_a_request_with_a_key_is_done_by_one_server() -> None:
    """Sent to all of them at once it is learned once, and everybody hears the same answer."""
    [(inputs, targets)] = batches(1)
    asked = asked_once("k", [inputs, targets], with_predictions=False)
    async with servers(3) as crew:
        await crew[0].put("s", "reg")
        for each in crew:
            await each.predict("s", PROBE)  # all of them have the stream in memory
        answers = await asyncio.gather(*(each.feedback_once(asked, "s", inputs, targets) for each in crew))
        assert len({body for body, _ in answers}) == 1
        assert sorted(replayed for _, replayed in answers) == [False, True, True]
        assert (await crew[0].get("s")).rows_seen == 2


@run_async
async def test_models_of_one_server_are_served_by_the_others() -> None:
    """A version that is added and activated anywhere is heard of, and its streams are brought along once."""
    async with servers() as (first, second):
        await first.put("s", "reg")
        await learn(first, "s", batches(3))
        bundle = write_bundle(small_model("regression", Lags((1,)), "reg"))
        assert await first.catalogue.put("reg", bundle) == 2
        await first.catalogue.activate("reg", 2)
        await first._activation.done()
        assert second.model("reg").versions == [1]
        assert (await second.predict("s", PROBE)).model_version == 2
        await second._following.look()
        await second._activation.done()
        assert (second.model("reg").versions, second.model("reg").active_version) == ([1, 2], 2)
        assert (await second.get("s")).stream_version == 4


@run_async
async def test_events_of_one_server_wake_those_who_listen_at_another() -> None:
    """Within a second: here, as soon as it looks."""
    async with servers() as (first, second):
        await first.put("s", "reg")
        await second._following.look()
        with second.bells.listening("s") as bell:
            await first.reset("s")
            assert not bell.is_set()
            await second._following.look()
            assert bell.is_set()
            assert [event.kind for event in await all_events(second, "s")] == ["reset"]


@run_async
async def test_webhooks_are_told_by_one_server_and_by_another_when_it_is_gone() -> None:
    """Added anywhere, told once, deleted anywhere; the next leader goes on after the last event that was heard."""
    world = World()
    async with servers(world=world) as (first, second):
        assert (first.webhooks._leads, second.webhooks._leads) == (True, False)
        info = await second.webhooks.add(URL, ["reset"], None)
        await first._following.look()
        await second.put("s", "reg")
        await second.reset("s")
        await first._following.look()
        await world.receiver.events(1)
        await until(lambda: first.webhooks._kept[info.id].cursor > 0)
        await first.close()
        await second.reset("s")
        await second._following.look()
        assert second.webhooks._leads
        await world.receiver.events(2)
        await second.webhooks.delete(info.id)
        assert world.receiver.revisions == [1, 2]
