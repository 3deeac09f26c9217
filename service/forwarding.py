"""Requests for the streams of another worker: handed to it as they are, and its answers handed back.

What comes in over a link is never handed on again.
"""

import asyncio
from contextlib import suppress

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UnavailableError
from service.links import Crew, Frame, Kind, Link, LostError, Peer
from service.problems import problem

FORWARDED = "acclimate.forwarded"
"""In the scope of a request that came over a link."""
_STREAMS = "/v1/streams/"
_ABSENT = "The worker that has this stream is starting or stopping, nothing was taken: repeat the request in a second."
_DIED = (
    "The worker that has this stream ended before it answered, and whether the request was taken is not known: look at "
    "the stream's stream_version, or repeat rows that have ids."
)


class Forwarder:
    """Answers requests for one's own streams, and those for nobody's; hands on the others.

    Args:
        app: What answers.
        crew: All workers.
    """

    def __init__(self, app: ASGIApp, crew: Crew) -> None:
        self._app = app
        self._crew = crew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and FORWARDED not in scope:
            path: str = scope["path"]
            if path.startswith(_STREAMS):
                stream = path[len(_STREAMS) :].partition("/")[0]
                owner = self._crew.owner(stream) if stream else self._crew.own
                if owner != self._crew.own:
                    await hand_on(self._crew.peers[owner], scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def hand_on(peer: Peer, scope: Scope, receive: Receive, send: Send) -> None:
    """Let another worker answer; 503 where it is not there, or dies before it answers.

    Raises:
        LostError: It died in the middle of its answer.
    """
    try:
        link = await peer.take()
    except LostError:
        await problem(UnavailableError(_ABSENT), scope)(scope, receive, send)
        return
    whole = False
    pump: asyncio.Task[None] | None = None
    try:
        first = await receive()
        if first["type"] == "http.disconnect":
            return
        link.put(Kind.HEAD, _head_of(scope, first))
        if first.get("more_body"):
            pump = asyncio.create_task(_pump(receive, link))
        whole = await _answer(link, receive, send, pump)
    except _BrokenError as error:
        if error.began:
            raise LostError from error
        await problem(UnavailableError(_DIED), scope)(scope, receive, send)
    finally:
        if pump is not None and not pump.done():
            whole = False  # the answer came before the end of the body
            pump.cancel()
        if whole:
            peer.give_back(link)
        else:
            link.close()


class _BrokenError(Exception):
    """A link broke in an answer; ``began`` tells whether some of it was sent."""

    def __init__(self, *, began: bool) -> None:
        super().__init__()
        self.began = began


async def _answer(link: Link, receive: Receive, send: Send, pump: "asyncio.Task[None] | None") -> bool:
    """Send what the link answers. Returns whether the link can be used again."""
    began = False
    watch: asyncio.Task[None] | None = None
    try:
        while True:
            frame = await link.frame()
            if frame.kind in {Kind.HEAD, Kind.WHOLE}:
                size = int.from_bytes(frame.content[:4], "little")
                status, headers = orjson.loads(frame.content[4 : 4 + size])
                began = True
                await send(
                    {
                        "type": "http.response.start",
                        "status": status,
                        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
                    }
                )
                if frame.kind is Kind.WHOLE:
                    await send({"type": "http.response.body", "body": frame.content[4 + size :]})
                    return True
                if pump is None:  # an answer without an end, perhaps: its client's going must reach the other worker
                    watch = asyncio.create_task(_watch(receive, link))
            elif frame.kind is Kind.DATA:
                await send({"type": "http.response.body", "body": frame.content, "more_body": True})
            else:
                await send({"type": "http.response.body", "body": b""})
                return watch is None or not watch.done()
    except LostError as error:
        raise _BrokenError(began=began) from error
    finally:
        if watch is not None:
            watch.cancel()


async def _pump(receive: Receive, link: Link) -> None:
    """Hand on the rest of a body, as fast as the other worker takes it; close the link where the client goes away."""
    more = True
    with suppress(LostError):  # whoever waits for the answer hears of it
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                link.close()
                return
            more = message.get("more_body", False)
            if message.get("body"):
                await link.send(Kind.DATA, message["body"])
        await link.send(Kind.END)


async def _watch(receive: Receive, link: Link) -> None:
    """Close the link where the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    link.close()


def _head_of(scope: Scope, first: Message) -> bytes:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    stated = [
        scope["method"],
        scope["path"],
        scope.get("query_string", b"").decode("latin-1"),
        scope.get("raw_path", b"").decode("latin-1"),
        headers,
        scope.get("client"),
        scope.get("server"),
        bool(first.get("more_body")),
    ]
    return _sized(orjson.dumps(stated)) + bytes(first.get("body", b""))


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


async def take_over(app: ASGIApp, link: Link, head: Frame) -> None:
    """Answer a request that another worker has handed on. Raises LostError where that worker gives up."""
    size = int.from_bytes(head.content[:4], "little")
    method, path, query, raw_path, headers, client, server, more = orjson.loads(head.content[4 : 4 + size])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": client and tuple(client),
        "server": server and tuple(server),
        "state": {},
        FORWARDED: True,
    }
    conversation = _Conversation(link, head.content[4 + size :], more=more)
    try:
        await app(scope, conversation.receive, conversation.send)
    except LostError:
        raise
    except Exception as error:  # whatever it is, the application has logged it
        raise LostError from error
    while conversation.more:  # what nobody has read must not be taken for the next request
        await conversation.receive()


class _Conversation:
    """A request over a link, as an ASGI application sees it.

    Attributes:
        more: Whether some of the body has not been read yet.
    """

    def __init__(self, link: Link, body: bytes, *, more: bool) -> None:
        self._link = link
        self._body: bytes | None = body
        self.more = more
        self._head: bytes | None = None

    async def receive(self) -> Message:
        """The next part of the body; after it, that the client has gone, when it has."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": self.more}
        try:
            if self.more:
                frame = await self._link.frame()
                self.more = frame.kind is Kind.DATA
                return {"type": "http.request", "body": frame.content, "more_body": self.more}
            await self._link.gone()
        except LostError:
            self.more = False
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Answer; what comes whole goes in one frame."""
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self._head = _sized(orjson.dumps([message["status"], headers]))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._head is not None:
            head, self._head = self._head, None
            if not more:
                await self._link.send(Kind.WHOLE, head + body)
                return
            await self._link.send(Kind.HEAD, head)
        if body:
            await self._link.send(Kind.DATA, body)
        if not more:
            await self._link.send(Kind.END)
