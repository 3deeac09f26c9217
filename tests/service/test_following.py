"""Events as they happen: server-sent events, resumable."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.bells import Bells
from service.errors import SaturatedError
from service.routes import events as route
from tests.service.http_case import assert_problem, run_async, serving

ACCEPT = {"Accept": "text/event-stream"}


class Live:
    """A connection that follows events of an application, called as a server would."""

    def __init__(self, client: httpx.AsyncClient, path: str, **headers: str) -> None:
        transport = client._transport
        assert isinstance(transport, httpx.ASGITransport)
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self.status = 0
        stated = {"host": "test", **ACCEPT, **headers}
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in stated.items()],
            "server": ("test", 80),
            "client": ("test", 1),
        }
        self._read = b""
        self._task: asyncio.Task[None] = asyncio.create_task(transport.app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            await self._parts.put(message.get("body", b""))

    async def events(self) -> AsyncIterator[dict[str, str]]:
        """The blocks that come, as fields; a comment has the field ````."""
        while True:
            while b"\n\n" not in self._read:
                async with asyncio.timeout(30):
                    self._read += await self._parts.get()
            block, _, self._read = self._read.partition(b"\n\n")
            yield dict(line.split(": ", 1) for line in block.decode().splitlines())

    async def close(self) -> None:
        """Go away."""
        self._gone.set()
        await asyncio.wait([self._task])


async def reset(client: httpx.AsyncClient, times: int = 1) -> None:
    """Make as many events."""
    for _ in range(times):
        (await client.post("/v1/streams/s/reset")).raise_for_status()


@run_async
async def test_events_come_as_they_are_committed_and_resume_after_the_last_one_seen() -> None:
    """What was there first, then each as it happens; a client that comes back misses none and gets none twice."""
    async with serving(page_items_max=2) as (client, streams):
        await client.put("/v1/streams/s", json={"model": "reg"})
        await reset(client, 3)
        live = Live(client, "/v1/streams/s/events")
        blocks = live.events()
        assert await anext(blocks) == {"retry": "2000"}
        seen = [await anext(blocks) for _ in range(3)]
        await reset(client)
        seen.append(await anext(blocks))
        assert live.status == 200
        assert [block["event"] for block in seen] == ["reset"] * 4
        listed = (await client.get("/v1/streams/s/events?limit=2")).json()["items"]
        assert [json.loads(block["data"]) for block in seen[:2]] == listed
        await live.close()
        back = Live(client, "/v1/streams/s/events", **{"Last-Event-ID": seen[1]["id"]})
        blocks = back.events()
        await anext(blocks)
        assert [await anext(blocks) for _ in range(2)] == seen[2:]
        await back.close()
        assert not streams.bells._listening


@run_async
async def test_silence_is_broken_by_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody between closes the connection."""
    monkeypatch.setattr(route, "ALIVE_SECONDS", 0.001)
    async with serving() as (client, _):
        await client.put("/v1/streams/s", json={"model": "reg"})
        live = Live(client, "/v1/streams/s/events")
        blocks = live.events()
        await anext(blocks)
        assert await anext(blocks) == {"": "alive"}
        await live.close()


@run_async
async def test_what_cannot_be_followed_is_a_problem() -> None:
    """An unknown stream, and an id that is none, are refused before anything is streamed."""
    async with serving() as (client, _):
        assert_problem(await client.get("/v1/streams/none/events", headers=ACCEPT), 404)
        await client.put("/v1/streams/s", json={"model": "reg"})
        bad = await client.get("/v1/streams/s/events", headers=ACCEPT | {"Last-Event-ID": "x"})
        assert assert_problem(bad, 422)["errors"][0]["loc"] == ["header", "Last-Event-ID"]


@run_async
async def test_followers_end_with_the_service() -> None:
    """A service that is told to stop does not wait for them."""
    async with serving() as (client, streams):
        await client.put("/v1/streams/s", json={"model": "reg"})
        live = Live(client, "/v1/streams/s/events")
        await anext(live.events())
        transport = client._transport
        assert isinstance(transport, httpx.ASGITransport)
        transport.app.state.context.draining = True  # type: ignore[attr-defined]
        streams.bells.ring_all()
        async with asyncio.timeout(30):
            await live._task


def test_followers_are_limited() -> None:
    """One more than the limit is refused; one that leaves makes room."""
    bells = Bells(1)
    with bells.listening("s"), pytest.raises(SaturatedError, match="page by page"), bells.listening("t"):
        pass
    with bells.listening("t") as bell:
        bells.ring("s")
        assert not bell.is_set()
        bells.ring("t")
        assert bell.is_set()
