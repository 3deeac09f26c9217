"""Webhooks: told until they are heard, signed, and never led inside."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Model
from service.addresses import is_public
from service.config import Settings
from service.store import SqliteStore, Store
from service.streams import Streams
from service.webhooks import GIVE_UP_SECONDS, Calls
from tests.service.crew_case import crew_of
from tests.service.http_case import assert_problem, run_async, serving
from tests.service.streams_case import NOW, Clock

URL = "https://example.test/hook?a=1"
PUBLIC, INSIDE = "93.184.216.34", "10.1.2.3"


class Receiver(httpx.AsyncBaseTransport):
    """The other end: keeps what it is told, and answers as it was told to, 200 when it was told nothing."""

    def __init__(self, answers: Sequence[int | Exception] = ()) -> None:
        self.requests: list[httpx.Request] = []
        self.answers = list(answers)
        self.told = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one call."""
        self.requests.append(request)
        self.told.set()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers={"Location": "http://169.254.169.254/"})

    @property
    def revisions(self) -> list[int]:
        """Of the events that were told, in order."""
        return [json.loads(request.content)["data"]["revision"] for request in self.requests]

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The bodies of the first calls, once there are so many."""
        async with asyncio.timeout(30):
            while len(self.requests) < count:
                self.told.clear()
                await self.told.wait()
        return [json.loads(request.content) for request in self.requests]


class World:
    """A receiver, the addresses of names, the waits that were made, and a clock that they move."""

    def __init__(self, answers: Sequence[int | Exception] = (), *, private: bool = False, still: bool = False) -> None:
        self.receiver = Receiver(answers)
        self.addresses: dict[str, list[str]] = {"example.test": [PUBLIC]}
        self.waits: list[float] = []
        self.clock = Clock()
        self.private = private
        self.still = still

    @property
    def calls(self) -> Calls:
        """How calls are made here."""
        client = httpx.AsyncClient(transport=self.receiver, follow_redirects=False)
        return Calls(client, self._resolve, self.private, self._sleep, Random(0))

    async def _resolve(self, host: str, _port: int) -> list[str]:
        if host not in self.addresses:
            raise OSError("not found")
        return self.addresses[host]

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.now += 0.0 if self.still else seconds
        await asyncio.sleep(0)

    def streams(self, store: Store | None = None) -> Any:
        """Makes streams whose webhooks are called here."""

        def made(settings: Settings, given_store: Store, models: Mapping[str, Model], _clock: Any) -> Streams:
            return Streams(settings, store or given_store, models, self.clock, calls=self.calls)

        return made


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0)


@asynccontextmanager
async def hooked(world: World, *, store: Store | None = None, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A service with a stream, whose webhooks lead to the world's receiver."""
    async with serving(world.streams(store), **limits) as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        yield client


async def add(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    """A webhook for resets."""
    return await client.post("/v1/webhooks", json={"url": URL, "events": ["reset"], **changes})


async def reset(client: httpx.AsyncClient, times: int = 1, stream: str = "s") -> None:
    """Make as many events."""
    for _ in range(times):
        (await client.post(f"/v1/streams/{stream}/reset")).raise_for_status()


@run_async
async def test_an_event_is_told_signed_to_the_address_that_was_looked_at() -> None:
    """Headers and signature as Standard Webhooks has them; the name is in the Host header and in TLS."""
    world = World()
    async with hooked(world) as client:
        made = (await add(client)).json()
        await reset(client)
        (told,) = await world.receiver.events(1)
        (request,) = world.receiver.requests
        event = (await client.get("/v1/streams/s/events")).json()["items"][0]
    assert told == {"type": "stream.reset", "timestamp": event["at"], "data": event}
    assert request.url == f"https://{PUBLIC}/hook?a=1"
    assert request.headers["host"] == "example.test"
    assert request.extensions["sni_hostname"] == "example.test"
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.content
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert int(request.headers["webhook-timestamp"]) == NOW


@run_async
async def test_what_was_not_heard_is_told_again_in_order() -> None:
    """Failures of every kind; a redirect is not followed; waits grow; the id stays that of the event."""
    answers: list[int | Exception] = [500, httpx.ConnectError("no"), TimeoutError(), 302, 200]
    world = World(answers)
    async with hooked(world) as client:
        await add(client, events=["reset", "drift"])
        await reset(client, 2)
        told = await world.receiver.events(6)
    ids = [request.headers["webhook-id"] for request in world.receiver.requests]
    assert ids == [ids[0]] * 5 + [ids[5]] != [ids[0]] * 6
    assert [each["data"]["revision"] for each in told] == [1] * 5 + [2]
    assert {request.url.host for request in world.receiver.requests} == {PUBLIC}
    bounds = [(2.5, 5), (5, 10), (10, 20), (20, 40)]
    assert all(low <= wait <= high for wait, (low, high) in zip(world.waits, bounds, strict=True))


@run_async
async def test_only_what_is_asked_for_and_happens_later_is_told() -> None:
    """Not what happened before, nor other kinds."""
    world = World()
    async with hooked(world) as client:
        await reset(client)
        await add(client, events=["rollback"])
        await reset(client)
        await client.post("/v1/streams/s/rollback", json={"revision": 0})
        told = await world.receiver.events(1)
    assert [(each["type"], each["data"]["revision"]) for each in told] == [("stream.rollback", 3)]


@run_async
async def test_a_url_that_is_gone_is_told_nothing_more() -> None:
    """410 ends it, for good."""
    world = World([410])
    async with serving(world.streams()) as (client, streams):
        await client.put("/v1/streams/s", json={"model": "reg"})
        name = (await add(client)).json()["id"]
        await reset(client)
        await until(lambda: not streams.webhooks.info(name).active)
        await reset(client)
        assert len(world.receiver.requests) == 1


@run_async
async def test_an_event_that_is_never_heard_is_given_up() -> None:
    """After three days, so that the next one has its turn."""
    world = World([500] * 10_000)
    async with hooked(world) as client:
        await add(client)
        await reset(client)
        await until(lambda: sum(world.waits) >= GIVE_UP_SECONDS)
        world.receiver.answers.clear()
        await reset(client)
        await until(lambda: world.receiver.revisions[-1] == 2)
    assert max(world.waits) <= 3_600


def test_what_was_not_heard_outlives_a_restart(tmp_path: Path) -> None:
    """It is told after the next start, and what was heard is not, but for the last one perhaps."""

    async def life(answers: list[int | Exception], resets: int, last: int) -> list[int]:
        world = World(answers, still=True)
        async with hooked(world, store=SqliteStore(tmp_path)) as client:
            if not (await client.get("/v1/webhooks")).json()["items"]:
                await add(client)
            await reset(client, resets)
            await until(lambda: last in world.receiver.revisions)
            return world.receiver.revisions

    heard = asyncio.run(life([200, *[httpx.ConnectError("no")] * 100_000], 3, 2))
    assert set(heard) == {1, 2}
    assert asyncio.run(life([], 0, 3)) == [2, 3]
    assert asyncio.run(life([], 1, 4))[-1] == 4


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://inside.test/", [INSIDE]),
        ("https://both.test/", [PUBLIC, INSIDE]),
        ("http://169.254.169.254/latest/meta-data", ["169.254.169.254"]),
        ("http://localhost:8000/", ["127.0.0.1"]),
        ("https://nowhere.test/", None),
        ("ftp://example.test/", [PUBLIC]),
        ("https://user:pass@example.test/", [PUBLIC]),
        ("https:///x", [PUBLIC]),
        ("https://example.test:99999/", [PUBLIC]),
        ("https://" + "a" * 2_000, [PUBLIC]),
    ],
)
@run_async
async def test_a_url_that_leads_inside_or_nowhere_is_refused(url: str, found: list[str] | None) -> None:
    """422 at ``url``, and nothing is kept."""
    world = World()
    if found is not None:
        world.addresses = dict.fromkeys(
            ["inside.test", "both.test", "169.254.169.254", "localhost", "example.test"], found
        )
    async with hooked(world) as client:
        assert assert_problem(await add(client, url=url), 422)["errors"][0]["loc"] == ["url"]
        assert (await client.get("/v1/webhooks")).json()["items"] == []


@run_async
async def test_a_name_that_changes_its_address_is_not_followed_inside() -> None:
    """Rebinding: each call looks at the addresses anew, and goes to the one that was looked at."""
    world = World()
    async with hooked(world) as client:
        await add(client)
        world.addresses["example.test"] = [INSIDE]
        await reset(client)
        await until(lambda: bool(world.waits))
        assert not world.receiver.requests
        world.addresses["example.test"] = [PUBLIC]
        await world.receiver.events(1)


@run_async
async def test_private_addresses_are_called_where_the_operator_allows_it() -> None:
    """``ACCLIMATE_WEBHOOK_PRIVATE``."""
    world = World(private=True)
    world.addresses["example.test"] = [INSIDE]
    async with hooked(world) as client:
        await add(client)
        await reset(client)
        await world.receiver.events(1)
        assert world.receiver.requests[0].url.host == INSIDE


@run_async
async def test_webhooks_are_listed_without_secrets_and_deleted() -> None:
    """The answer to the creation alone has it; a given one is taken; there is a limit."""
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    world = World()
    async with hooked(world, webhooks_max=1) as client:
        made = await add(client, secret=secret, events=["reset", "drift", "reset"])
        assert made.status_code == 201
        body = made.json()
        assert (body["secret"], body["events"], body["active"]) == (secret, ["reset", "drift"], True)
        assert_problem(await add(client), 409)
        listed = await client.get("/v1/webhooks")
        assert secret not in listed.text
        assert [item["id"] for item in listed.json()["items"]] == [body["id"]]
        one = (await client.get(f"/v1/webhooks/{body['id']}")).json()
        assert one == {**body, "secret": None}
        assert (await client.delete(f"/v1/webhooks/{body['id']}")).status_code == 204
        assert_problem(await client.delete(f"/v1/webhooks/{body['id']}"), 404)
        await reset(client)
        bad: dict[str, Any]
        for bad in ({"secret": "x"}, {"secret": "whsec_" + "a" * 8}, {"events": []}, {"events": ["all"]}, {"more": 1}):
            assert_problem(await add(client, **bad), 422)
    assert not world.receiver.requests


@run_async
async def test_each_worker_tells_of_its_own_streams() -> None:
    """All have a webhook under one id and secret, and all lose it."""
    async with crew_of(webhook_private=True) as workers:
        body = {"url": "http://127.0.0.1:9/", "events": ["reset"]}
        made = (await workers[0].client.post("/v1/webhooks", json=body)).json()
        keys = {worker.streams.webhooks._kept[made["id"]].secret for worker in workers}
        assert len(keys) == 1
        assert (await workers[1].client.delete(f"/v1/webhooks/{made['id']}")).status_code == 204
        for worker in workers:
            assert (await worker.client.get("/v1/webhooks")).json()["items"] == []


@given(st.ip_addresses(v=4))
def test_no_spelling_of_an_inner_address_is_public(address: Any) -> None:
    """Mapped, 6to4 and NAT64 addresses are judged by the address within."""
    number = int(address)
    spelled = [
        f"::ffff:{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}",
    ]
    assert {is_public(each) for each in spelled} == {is_public(str(address))}
