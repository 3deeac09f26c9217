"""What workers say to each other over Unix sockets: frames, one conversation at a time on a connection.

A frame is its length (4 bytes), its kind (1 byte) and its contents. A request is ``HEAD`` (with its body where that has
come whole), else followed by ``DATA`` and ``END``; it is answered by ``WHOLE``, or by ``HEAD``, ``DATA`` and ``END``.
What workers ask of each other is ``CALL``, answered by ``WHOLE``. Whoever gives up closes the connection.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, cast

from service.shards import shard_of

FRAME_BYTES_MAX = 2**28
"""Beyond this a frame is rubbish."""
IDLE_LINKS_MAX = 256
"""Connections to one worker that are kept for later."""
WAITING_BYTES_MAX = 2**18
"""Of frames that nobody has read yet; then the other end has to wait."""
_HEAD = struct.Struct("<IB")


class Kind(IntEnum):
    """What a frame is."""

    HEAD = 1
    DATA = 2
    END = 3
    WHOLE = 4
    CALL = 5


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    content: bytes


class LostError(ConnectionError):
    """The other end of a link is gone."""


class Link(asyncio.Protocol):
    """One connection, on which frames are sent and read.

    Args:
        begin: Called with the first frame of each conversation, at the end that is asked; the other has none.
    """

    def __init__(self, begin: "Callable[[Link, Frame], None] | None" = None) -> None:
        self._begin = begin
        self._talking = False
        self._rest = b""
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._reader: asyncio.Future[Frame | None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._lost = self._paused = False

    @property
    def quiet(self) -> bool:
        """Whether it can be used for another conversation."""
        return not self._lost and not self._transport.is_closing()

    # --- what the event loop says ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            size, kind = _HEAD.unpack_from(data, at)
            stop = at + _HEAD.size + size
            if size > FRAME_BYTES_MAX or kind not in _KINDS:
                self._transport.abort()
                return
            if stop > end:
                break
            self._take(Frame(_KINDS[kind], data[at + _HEAD.size : stop]))
            at = stop
        self._rest = data[at:]

    def _take(self, frame: Frame) -> None:
        if self._begin is not None and not self._talking:
            self._talking = True
            self._begin(self, frame)
        elif self._reader is not None:
            self._answer(frame)
        else:
            self._frames.append(frame)
            self._waiting_bytes += len(frame.content)
            if self._waiting_bytes > WAITING_BYTES_MAX and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def _answer(self, frame: Frame | None) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(frame)

    def pause_writing(self) -> None:
        """Let ``send`` wait."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let it go on."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait any more."""
        del exc
        self._lost = True
        self._answer(None)
        self.resume_writing()

    # --- what a conversation does ---

    def end(self) -> None:
        """The conversation is over at the end that was asked; the next frame begins another."""
        self._talking = False
        if self._frames and self._begin is not None:
            self._waiting_bytes -= len(self._frames[0].content)
            self._take(self._frames.popleft())

    def put(self, kind: Kind, content: bytes = b"") -> None:
        """Send a frame, without waiting for room."""
        self._transport.write(_HEAD.pack(len(content), kind) + content)

    async def send(self, kind: Kind, content: bytes = b"") -> None:
        """Send a frame, and wait until there is room for another. Raises LostError."""
        if self._lost:
            raise LostError
        self.put(kind, content)
        if self._room is not None:
            await self._room
            if self._lost:
                raise LostError

    async def frame(self) -> Frame:
        """The next frame. Raises LostError."""
        if self._frames:
            frame = self._frames.popleft()
            self._waiting_bytes -= len(frame.content)
            if self._paused and not self._frames:
                self._paused = False
                self._transport.resume_reading()
            return frame
        found = None if self._lost else await self._next()
        if found is None:
            raise LostError
        return found

    async def _next(self) -> Frame | None:
        self._reader = asyncio.get_running_loop().create_future()
        return await self._reader

    async def gone(self) -> None:
        """Wait until the other end closes: within a conversation it says nothing more."""
        if not self._lost:
            await self._next()

    def close(self) -> None:
        """End it, whatever it is in the middle of."""
        self._transport.close()


class Peer:
    """Another worker: links to it, of which those that nobody uses are kept.

    Args:
        path: Its socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[Link] = []

    async def take(self) -> Link:
        """A link of one's own, until ``give_back`` or ``Link.close``. Raises LostError where there is no worker."""
        while self._idle:
            link = self._idle.pop()
            if link.quiet:
                return link
            link.close()
        try:
            _, link = await asyncio.get_running_loop().create_unix_connection(Link, str(self._path))
        except OSError as error:
            raise LostError from error
        return link

    def give_back(self, link: Link) -> None:
        """Keep a link whose conversation has ended."""
        if len(self._idle) < IDLE_LINKS_MAX:
            self._idle.append(link)
        else:
            link.close()

    def close(self) -> None:
        """Close the links that nobody uses."""
        while self._idle:
            self._idle.pop().close()


class Crew(NamedTuple):
    """The workers of a service, by the shards that they have.

    Attributes:
        own: Which of them this is.
        peers: All of them, oneself included.
    """

    own: int
    peers: tuple[Peer, ...]

    def owner(self, name: str) -> int:
        """The worker that has what is of this name."""
        return shard_of(name, len(self.peers))

    def close(self) -> None:
        """Close the links that nobody uses."""
        for peer in self.peers:
            peer.close()


async def listen(path: Path, converse: Callable[[Link, Frame], Awaitable[None]]) -> asyncio.Server:
    """Take links at a socket; each conversation begins with the frame that is handed over, and one follows another.

    ``converse`` may raise LostError: the link is closed then.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def one(link: Link, frame: Frame) -> None:
        try:
            await converse(link, frame)
        except LostError:
            link.close()
        else:
            link.end()

    def begin(link: Link, frame: Frame) -> None:
        task = asyncio.get_running_loop().create_task(one(link, frame))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return await asyncio.get_running_loop().create_unix_server(lambda: Link(begin), str(path))
