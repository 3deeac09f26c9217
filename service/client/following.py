"""Server-sent events out of bytes, as the HTML standard has them, without reading anything."""

import json
from collections.abc import Iterator

from service.client.replies import Event, read


class EventReader:
    """Takes bytes in whatever pieces they come, and tells events.

    Attributes:
        last_id: Id of the last event; what a client that comes back sends.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._rest = b""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are whole by now."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            event = self._line(line.decode())
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            data, self._data = self._data, []
            if not data:
                return None
            event = read(Event, json.loads("\n".join(data)))
            self.last_id = event.id
            return event
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        return None
