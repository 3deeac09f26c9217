"""Links between workers: bodies and answers of any length, whoever gives up, and whoever is not there."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.forwarding import FORWARDED, Forwarder, take_over
from service.links import WAITING_BYTES_MAX, Crew, Kind, LostError, Peer, listen
from tests.service.crew_case import names_of
from tests.service.http_case import assert_problem, run_async

FOREIGN = f"/v1/streams/{names_of(1, 1)[0]}/feedback"


async def nobody(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """The worker that is asked has no such stream."""
    raise AssertionError


@asynccontextmanager
async def owned_by(app: ASGIApp) -> AsyncIterator[Forwarder]:
    """A forwarder in front of a worker that answers with ``app``."""
    with tempfile.TemporaryDirectory(prefix="links-") as folder:
        path = Path(folder) / "1.sock"
        crew = Crew(0, (Peer(Path(folder) / "0.sock"), Peer(path)))
        server = await listen(path, lambda link, frame: take_over(app, link, frame))
        try:
            yield Forwarder(nobody, crew)
        finally:
            crew.close()
            server.close()


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    """A client without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what was asked, piece by piece as it comes."""
    stated = [scope["method"], scope["path"], scope["query_string"].decode(), dict(scope["headers"])[b"x-own"].decode()]
    headers = [(b"x-told", b"caf\xe9"), (b"x-told", b"twice")]
    await send({"type": "http.response.start", "status": 207, "headers": headers})
    await send(
        {"type": "http.response.body", "body": orjson.dumps([*stated, scope[FORWARDED]]) + b"\n", "more_body": True}
    )
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
@run_async
async def test_requests_and_answers_cross_over_whole(size: int) -> None:
    """Method, path, query, headers and bodies of any size, one after another on the same link."""
    async with owned_by(echo) as forwarder, client_of(forwarder) as client:
        for turn in range(3):
            body = bytes(turn for _ in range(size))
            answer = await client.post(f"{FOREIGN}?a=%C3%A9&b", content=body, headers={"x-own": f"turn {turn}"})
            assert answer.status_code == 207
            assert answer.headers.get_list("x-told") == ["caf\xe9", "twice"]
            stated, _, rest = answer.content.partition(b"\n")
            assert orjson.loads(stated) == ["POST", FOREIGN, "a=%C3%A9&b", f"turn {turn}", True]
            assert rest == body


async def talk(app: ASGIApp, receive: Receive, send: Send) -> None:
    """One request for the foreign stream."""
    scope = {"type": "http", "method": "POST", "path": FOREIGN, "headers": [], "query_string": b""}
    await app(scope, receive, send)


def reader_of(pieces: Callable[[int], bytes]) -> tuple[Receive, list[int]]:
    """A body in pieces, none empty but the last; and what was asked for."""
    asked: list[int] = []

    async def receive() -> Message:
        piece = pieces(len(asked))
        asked.append(len(piece))
        await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    return receive, asked


async def settle() -> None:
    """Let everything happen that happens by itself."""
    for _ in range(200):
        await asyncio.sleep(0)


@run_async
async def test_an_endless_body_waits_for_its_reader() -> None:
    """What lies between the workers is bounded."""
    go, sent = asyncio.Event(), list[Message]()

    async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        read = 0
        while (message := await receive())["more_body"]:
            read += len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(read).encode()})

    async def send(message: Message) -> None:
        sent.append(message)

    stop = False
    receive, asked = reader_of(lambda _: b"" if stop else b"x" * 65_536)
    async with owned_by(slow) as forwarder:
        task = asyncio.create_task(talk(forwarder, receive, send))
        await settle()
        before = sum(asked)
        await settle()
        assert sum(asked) == before < 10 * WAITING_BYTES_MAX
        stop = True
        go.set()
        await task
    assert sent[-1]["body"] == str(sum(asked)).encode()


@run_async
async def test_an_endless_answer_waits_for_its_reader() -> None:
    """The worker that makes it is held up, and goes on when the client reads."""
    made = 0

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while made < 200 or not done.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            made += 1
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"end"})

    reads, done, sent = asyncio.Event(), asyncio.Event(), list[bytes]()

    async def send(message: Message) -> None:
        await reads.wait()
        sent.append(message.get("body", b""))

    first = True

    async def received() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        return await receive_later()

    async def receive_later() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async with owned_by(endless) as forwarder:
        task = asyncio.create_task(talk(forwarder, received, send))
        await settle()
        before = made
        await settle()
        assert made == before < 100
        done.set()
        reads.set()
        await task
    assert sent[-2:] == [b"end", b""]
    assert sum(map(len, sent)) == 200 * 65_536 + 3


@pytest.mark.parametrize("body_ended", [True, False])
@run_async
async def test_a_client_that_goes_away_is_known_to_the_owner(*, body_ended: bool) -> None:
    """While it sends, and while it listens."""
    heard, gone = asyncio.Event(), asyncio.Event()

    async def listening(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        if asked == 1:
            return {"type": "http.request", "body": b"x", "more_body": not body_ended}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            gone.set()

    async with owned_by(listening) as forwarder:
        with pytest.raises(LostError):
            await talk(forwarder, receive, send)
        async with asyncio.timeout(30):
            await heard.wait()


@run_async
async def test_an_answer_before_the_end_of_the_body_ends_the_link() -> None:
    """The rest of the body must not be taken for the next request."""

    async def hasty(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"enough"})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with owned_by(hasty) as forwarder:
        for _ in range(3):
            receive, _asked = reader_of(lambda number: b"x" * 1000 if number < 50 else b"")
            await talk(forwarder, receive, send)
    assert [message.get("status") for message in sent[::2]] == [413, 413, 413]


@run_async
async def test_a_worker_that_is_not_there_is_503() -> None:
    """And one that dies before it answers; the client repeats the request."""

    async def dying(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LostError

    with tempfile.TemporaryDirectory(prefix="links-") as folder:
        peers = (Peer(Path(folder) / "0.sock"), Peer(Path(folder) / "1.sock"))
        async with client_of(with_id(Forwarder(nobody, Crew(0, peers)))) as client:
            assert_problem(await client.post(FOREIGN, json={}), 503)
    async with owned_by(dying) as forwarder, client_of(with_id(forwarder)) as client:
        assert_problem(await client.post(FOREIGN, json={}), 503)


def with_id(app: ASGIApp) -> ASGIApp:
    """An application whose answers have a request id."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", b"1")]
            await send(message)

        await app(scope, receive, sent)

    return answered


@run_async
async def test_what_came_over_a_link_is_answered_here() -> None:
    """Even where the workers disagree about who has the stream: nothing goes round in circles."""
    answered: list[str] = []

    async def here(scope: Scope, _receive: Receive, _send: Send) -> None:
        answered.append(scope["path"])

    crew = Crew(0, (Peer(Path("none")), Peer(Path("none"))))

    async def unused() -> Any:
        raise AssertionError

    used: Callable[..., Awaitable[Any]] = unused
    await Forwarder(here, crew)({"type": "http", "path": FOREIGN, FORWARDED: True}, used, used)
    assert answered == [FOREIGN]


@run_async
async def test_rubbish_on_a_link_ends_it() -> None:
    """Nothing of it is answered."""
    async with owned_by(echo) as forwarder:
        link = await forwarder._crew.peers[1].take()
        link._transport.write(b"\xff" * 64)
        with pytest.raises(LostError):
            await link.frame()
        link = await forwarder._crew.peers[1].take()
        link.close()
        await settle()
        with pytest.raises(LostError):
            await link.send(Kind.DATA, b"x")
