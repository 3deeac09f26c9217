"""How long a client may take: uvicorn's HTTP protocol, which waits for ever, with an end to each wait.

Held open for nothing are otherwise connections that never send a whole head (slowloris), stop in the middle of a body,
or do not read their answer.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.config import Settings

LOOKS = 4
"""How often in the shortest wait a connection is looked at."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    IDLE = auto()


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose client takes too long, or of which there are too many."""

    settings: Settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head; or close it at once, where there is no room."""
        super().connection_made(transport)
        settings = self.settings
        self._phase, self._since, self._head_bytes = Phase.HEAD, self.loop.time(), 0
        self._unread_since: float | None = None
        self._every = min(settings.head_seconds, settings.body_seconds, settings.reader_seconds) / LOOKS
        self._looking = self.loop.call_later(self._every, self._look)
        if len(self.connections) > settings.connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head has a limit."""
        if self._phase is Phase.IDLE:
            self._begin(Phase.HEAD)
        if self._phase is Phase.BODY:
            self._since = self.loop.time()
        super().data_received(data)
        if self._phase is Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.settings.head_bytes_max and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """A body may follow."""
        self._begin(Phase.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._begin(Phase.ANSWER)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Another request may come; how long it may take to begin is uvicorn's own limit."""
        if self._phase is Phase.ANSWER:
            self._begin(Phase.IDLE)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._unread_since = None
        super().resume_writing()

    def _begin(self, phase: Phase) -> None:
        self._phase, self._since, self._head_bytes = phase, self.loop.time(), 0

    def _look(self) -> None:
        """Close the connection where its client has taken too long."""
        now, settings = self.loop.time(), self.settings
        if self._phase is Phase.BODY and self.flow.read_paused:
            self._since = now  # it is the service that does not read
        waits = {Phase.HEAD: settings.head_seconds, Phase.BODY: settings.body_seconds}
        late = self._phase in waits and now - self._since > waits[self._phase]
        unread = self._unread_since is not None and now - self._unread_since > settings.reader_seconds
        if late or unread:
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(self._every, self._look)


def patient(settings: Settings) -> Callable[..., Any]:
    """The protocol with the limits of some settings."""
    return type("Patient", (PatientProtocol,), {"settings": settings})
