"""How long a client may take: uvicorn's HTTP protocol, which waits for ever, with an end to each wait.

Held open for nothing are otherwise connections that never send a whole head (slowloris), stop in the middle of a body
or send it a byte at a time, go on with one that was answered already, or do not read their answer.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.arrow import ARROW
from service.config import Settings
from service.lines import NDJSON

LOOKS = 4
"""How often in the shortest wait a connection is looked at."""
REST_BYTES_MAX = 8 * 2**20
"""Most that is read of a body after its answer: who goes on to write may else never come to read why it was refused."""
PIPELINED_MAX = 32
"""Most requests of a connection that wait for the one before them: each takes kilobytes, and a few bytes bring it."""
_UPLOADS = (ARROW.encode(), NDJSON.encode())
"""Bodies that come as their rows do, and so may be slow for as long as they are not silent."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    UPLOAD = auto()
    REST = auto()
    ANSWER = auto()
    IDLE = auto()


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose client takes too long, or of which there are too many."""

    settings: Settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head; or close it at once, where there is no room."""
        super().connection_made(transport)
        settings = self.settings
        self._unread_since: float | None = None
        self._every = min(settings.head_seconds, settings.body_seconds, settings.reader_seconds) / LOOKS
        self._looking: asyncio.TimerHandle | None = None
        self._begin(Phase.HEAD)
        if len(self.connections) > settings.connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking; what was asked and not begun is let go of."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head has a limit, and so has what comes of a body after its answer."""
        if self._phase is Phase.IDLE:
            self._begin(Phase.HEAD)
        self._bytes += len(data)
        if self._phase in (Phase.BODY, Phase.UPLOAD):
            self._silent_since = self.loop.time()
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._phase is Phase.HEAD and self._bytes > self.settings.head_bytes_max:
            self.send_400_response("The head of the request is too large.")
        elif self._phase is Phase.REST and self._bytes > REST_BYTES_MAX:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """A body may follow."""
        if self.transport.is_closing():
            return
        if len(self.pipeline) >= PIPELINED_MAX:
            self._reset()
            return
        upload = any(name == b"content-type" and value.lower().startswith(_UPLOADS) for name, value in self.headers)
        self._begin(Phase.UPLOAD if upload else Phase.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; it may have been answered before."""
        self._begin(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Another request may come; how long it may take to begin is uvicorn's own limit."""
        if self._phase is Phase.ANSWER:
            self._begin(Phase.IDLE)
        elif self.cycle.response_complete:  # and not that of a request before it
            self._begin(Phase.REST)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._unread_since = self.loop.time()
        self._look_later()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._unread_since = None
        super().resume_writing()

    def _begin(self, phase: Phase) -> None:
        self._phase, self._bytes = phase, 0
        self._since = self._silent_since = self.loop.time()
        self._look_later()

    def _look_later(self) -> None:
        """Nobody looks at a connection that waits for nothing: there may be thousands."""
        waits = self._phase is not Phase.IDLE or self._unread_since is not None
        if waits and self._looking is None and not self.transport.is_closing():
            self._looking = self.loop.call_later(self._every, self._look)

    def _look(self) -> None:
        """Close the connection where its client has taken too long."""
        now, self._looking = self.loop.time(), None
        if self._phase in (Phase.BODY, Phase.UPLOAD) and self.flow.read_paused:
            self._since += self._every  # it is the service that does not read
            self._silent_since = now
        unread = self._unread_since is not None and now - self._unread_since > self.settings.reader_seconds
        if unread:
            self._reset()
        elif self._late(now):
            self.transport.abort()
        else:
            self._look_later()

    def _reset(self) -> None:
        """Close at once; what the client has not read is not kept for it by the system, as it would be for minutes."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(descriptor)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _late(self, now: float) -> bool:
        """Whether what the connection waits for should have come."""
        settings, silent = self.settings, now - self._silent_since
        if self._phase in (Phase.HEAD, Phase.REST):
            return now - self._since > settings.head_seconds
        if self._phase is Phase.UPLOAD:
            return silent > settings.body_seconds
        allowed = settings.body_seconds + self._bytes / settings.body_bytes_per_second_min
        return self._phase is Phase.BODY and (silent > settings.body_seconds or now - self._since > allowed)


def patient(settings: Settings) -> Callable[..., Any]:
    """The protocol with the limits of some settings."""
    return type("Patient", (PatientProtocol,), {"settings": settings})
