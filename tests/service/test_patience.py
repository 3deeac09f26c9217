"""Clients that take too long, or are too many, are closed; all others are not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.config import Settings
from service.patience import PIPELINED_MAX, patient
from tests.service.http_case import run_async

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n"
SHORT, LONG = 0.05, 600.0
ESTABLISHED, RESET = 1, 7
"""States of a connection (tcp(7))."""
CHUNK, CHUNKS = b"x" * 2**20, 64
"""More than the buffers between hold."""


class Served:
    """A port, and what to do when a request is whole or begins."""

    def __init__(self) -> None:
        self.port = 0
        self.read_on = asyncio.Event()
        self.large = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body when told to, then answer."""
        if scope["method"] == "POST":
            await self.read_on.wait()
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
        for _ in range(CHUNKS if self.large else 0):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    """A server of uvicorn's with these limits, all others far away."""
    far = {"head_seconds": LONG, "body_seconds": LONG, "reader_seconds": LONG}
    settings = Settings(data_dir=Path("unused"), **(far | limits))
    app = Served()
    app.read_on.set()
    config = uvicorn.Config(app, http=patient(settings), lifespan="off", log_config=None, ws="none", port=0)  # type: ignore[arg-type]
    config.load()
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    protocol: Any = config.http_protocol_class
    listening = await loop.create_server(
        lambda: protocol(config=config, server_state=server.server_state, app_state={}), "127.0.0.1", 0
    )
    app.port = listening.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        app.read_on.set()
        listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD[:-2], b"GET / HTTP/1.1\r\nHost: test\r\nX: "])
@run_async
async def test_a_head_has_to_be_whole_in_time(sent: bytes) -> None:
    """Whatever of it was sent; each further byte does not win time."""
    async with served(head_seconds=SHORT) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(sent)
        assert await closed(reader) == b""
        writer.close()


@run_async
async def test_a_body_has_to_go_on() -> None:
    """A silence in the middle ends it, unless it is the service that does not read."""
    async with served(body_seconds=SHORT) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(HEAD + b"ab")
        assert await closed(reader) == b""
        writer.close()
    async with served(body_seconds=8 * SHORT) as app:  # long enough for what is read before it pauses
        app.read_on.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        size = 4 * 2**16
        writer.write(HEAD.replace(b": 4", f": {size}".encode()) + b"x" * (size - 1))
        await asyncio.sleep(12 * SHORT)
        assert not reader.at_eof()
        app.read_on.set()
        writer.write(b"x")
        async with asyncio.timeout(30):
            assert b"200" in await reader.readline()
        writer.close()


@pytest.mark.parametrize(("kind", "stays"), [("application/json", False), ("application/x-ndjson", True)])
@run_async
async def test_a_body_has_to_come_at_a_rate(kind: str, stays: bool) -> None:
    """A byte now and then does not keep a connection, but that of an upload, whose rows come when they come."""
    async with served(body_seconds=4 * SHORT, body_bytes_per_second_min=10_000) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        head = f"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nContent-Length: 30\r\n\r\n"
        writer.write(head.encode())
        for _ in range(30):
            await asyncio.sleep(SHORT / 2)
            writer.write(b"x")
        assert (await closed_or_line(reader)).startswith(b"HTTP/1.1 200") is stays
        writer.close()


@run_async
async def test_what_follows_an_answer_has_a_limit() -> None:
    """Who was answered before the body was whole may end it and ask again, but neither for ever nor for megabytes."""
    head = b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n"
    async with served(head_seconds=2 * SHORT) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(head)
        assert (await closed(reader)).startswith(b"HTTP/1.1 200")  # though the head was in time
        writer.close()
    async with served() as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(HEAD.replace(b"POST", b"PUT") + b"ab")
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"cd" + HEAD + b"abcd")
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(head)
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        with pytest.raises(ConnectionError):
            await flood(writer)
        writer.close()


@run_async
async def test_a_head_after_a_refused_body_has_to_be_whole_in_time() -> None:
    """The end of a body that was answered before begins no wait without an end."""
    async with served(head_seconds=4 * SHORT) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        writer.write(HEAD.replace(b"POST", b"PUT"))
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"abcd")
        await asyncio.sleep(SHORT)
        writer.write(b"GET / HT")
        assert await closed(reader) == b""
        writer.close()


@run_async
async def test_an_answer_has_to_be_read() -> None:
    """Where it is not, the connection ends; the task that answers ends with it."""
    async with served(reader_seconds=SHORT) as app:
        app.large = True
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port, limit=1)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        transport: Any = writer.transport
        transport.pause_reading()
        await asyncio.sleep(4 * SHORT)
        transport.resume_reading()
        await closed(reader)
        writer.close()
    async with served(reader_seconds=SHORT) as app:
        app.large = True
        with socket.create_connection(("127.0.0.1", app.port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            for _ in range(600):
                state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                if state != ESTABLISHED:
                    break
                await asyncio.sleep(SHORT)
            assert state == RESET  # the system keeps nothing for who has not read


@run_async
async def test_who_keeps_in_time_stays() -> None:
    """One request after the other on a connection, with pauses longer than any wait between them."""
    async with served(head_seconds=SHORT, body_seconds=SHORT, reader_seconds=SHORT) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        for _ in range(3):
            writer.write(HEAD + b"abcd")
            async with asyncio.timeout(30):
                assert (await reader.readuntil(b"ok\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(3 * SHORT)
        writer.close()


@run_async
async def test_a_head_has_a_limit() -> None:
    """Of many headers, or of one without an end: 400, and closed."""
    async with served(head_bytes_max=20_000) as app:
        for flood in (b"".join(b"X-%d: y\r\n" % number for number in range(9_000)), b"X: " + b"y" * 90_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n" + flood)
            assert (await closed(reader)).startswith(b"HTTP/1.1 400") or reader.at_eof()
            writer.close()


@run_async
async def test_there_is_a_limit_of_requests_that_wait() -> None:
    """On one connection: so many are answered in turn, one with more is closed."""
    async with served() as app:
        for more in (0, 1):
            app.read_on.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            writer.write((HEAD + b"abcd") * (1 + PIPELINED_MAX + more))
            if more:
                assert await closed(reader) == b""
            else:
                await asyncio.sleep(SHORT)
                app.read_on.set()
                async with asyncio.timeout(30):
                    for _ in range(1 + PIPELINED_MAX):
                        assert (await reader.readuntil(b"ok\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()


@run_async
async def test_there_is_a_limit_of_connections() -> None:
    """One more is closed at once; the others are served, and one that goes makes room."""
    async with served(connections_max=2) as app:
        pairs = [await asyncio.open_connection("127.0.0.1", app.port) for _ in range(2)]
        for reader, writer in pairs:
            writer.write(HEAD + b"abcd")
            assert b"200" in await reader.readline()
        reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
        assert await closed(reader) == b""
        writer.close()
        pairs[0][1].close()
        await pairs[0][1].wait_closed()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            writer.write(HEAD + b"abcd")
            answer = await closed_or_line(reader)
            writer.close()
            if answer:
                break
        assert b"200" in answer
        pairs[1][1].close()


async def flood(writer: asyncio.StreamWriter) -> None:
    """Write what no limit of these tests allows. Raises ConnectionError once the server has closed."""
    for _ in range(CHUNKS):
        writer.write(CHUNK)
        async with asyncio.timeout(30):
            await writer.drain()


async def closed_or_line(reader: asyncio.StreamReader) -> bytes:
    """The first line, empty where the connection was closed."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""
