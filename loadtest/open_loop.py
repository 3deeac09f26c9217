"""A constant rate of requests that does not wait for answers, light enough to find the limits of a server.

httpx costs several times what this server does; here a request is bytes that were made before, and of an answer no
more is read than its status and length. A request whose time has come and for which no connection is free waits, and
its latency counts from its time: nothing is left out that a slow server has held up (no coordinated omission).
"""

import asyncio
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from loadtest.histogram import Histogram

LATE_SECONDS = 0.002
"""A generator that is later than this at one request in a hundred is itself the limit."""
LAST_ANSWER_SECONDS = 30.0


@dataclass
class Offered:
    """What came of a constant rate.

    Attributes:
        rate: Requests per second that were offered.
        seconds: For how long.
        latency: Of answers 200, from the time that they were due.
        statuses: How many answers came in that time, by their status.
        late: How late the generator itself was, in sending what could be sent.
        retry_after: How many refusals said when to come back.
        probes: Of a second kind of request, from when it was sent.
        watched: What was looked at when counting began, and at the end.
    """

    rate: float
    seconds: float
    latency: Histogram = field(default_factory=Histogram)
    statuses: Counter[int] = field(default_factory=Counter)
    late: Histogram = field(default_factory=Histogram)
    retry_after: int = 0
    probes: Histogram = field(default_factory=Histogram)
    watched: list[int] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Answers 200 per second."""
        return self.statuses[200] / self.seconds

    @property
    def limited(self) -> bool:
        """Whether the generator was the limit."""
        return self.late.at(0.99) > LATE_SECONDS * 1e3


class _Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._read = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._load.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._load.open -= 1

    def send(self, due: float, request: bytes) -> None:
        self._due = due
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = self._read[:head].lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(self._read) < head + 4 + length:
            return
        self._read = self._read[head + 4 + length :]
        retry = any(line.startswith(b"retry-after:") for line in lines)
        self._load.answered(self, self._due, int(lines[0].split(b" ")[1]), retry=retry)


class _Load:
    """Connections that are free, and requests whose time has come."""

    def __init__(self, found: Offered) -> None:
        self.free: deque[_Connection] = deque()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.open = 0
        self.running = 0
        self.counted_from = math.inf
        self._found = found

    def offer(self, due: float, request: bytes) -> None:
        """Send a request, or let it wait."""
        if self.free:
            self._found.late.record(time.perf_counter() - due)
            self._send(self.free.popleft(), due, request)
        else:
            self.waiting.append((due, request))

    def _send(self, connection: _Connection, due: float, request: bytes) -> None:
        self.running += 1
        connection.send(due, request)

    def answered(self, connection: _Connection, due: float, status: int, *, retry: bool) -> None:
        """Count an answer, and use its connection again."""
        self.running -= 1
        now = time.perf_counter()
        if self.counted_from <= now < self.counted_from + self._found.seconds:
            self._found.statuses[status] += 1
            self._found.retry_after += retry
        if status == 200 and due >= self.counted_from:
            self._found.latency.record(now - due)
        if self.waiting:
            self._send(connection, *self.waiting.popleft())
        else:
            self.free.append(connection)


async def offer(
    port: int,
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    *,
    connections: int = 256,
    warm_seconds: float = 0.5,
    probe: tuple[bytes, float] | None = None,
    watch: Callable[[], int] = lambda: 0,
) -> Offered:
    """Send requests at a constant rate.

    Args:
        port: On the loopback address.
        requests: Sent in turn, again and again.
        rate: Requests per second.
        seconds: How long, after ``warm_seconds`` that are not counted.
        connections: Most requests under way at once.
        warm_seconds: At the same rate.
        probe: A second request and its rate, over a connection of its own.
        watch: Called when counting begins, and at the end.
    """
    loop = asyncio.get_running_loop()
    found = Offered(rate, seconds)
    turns = itertools.cycle(requests)
    load = _Load(found)
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
        load.open += 1
    began = time.perf_counter()
    load.counted_from = began + warm_seconds
    probing = asyncio.create_task(_probe(port, *probe, found, load.counted_from)) if probe else None
    total = int(rate * (seconds + warm_seconds))
    sent = 0
    while sent < total:
        now = time.perf_counter()
        if not found.watched and now >= load.counted_from:
            found.watched.append(watch())
        while sent < total and began + sent / rate <= now:
            load.offer(began + sent / rate, next(turns))
            sent += 1
        await asyncio.sleep(0)  # turning, not sleeping: timers come too late
    found.watched.append(watch())
    if probing is not None:
        probing.cancel()
    load.waiting.clear()  # what no connection was free for to the end counts as not answered
    async with asyncio.timeout(LAST_ANSWER_SECONDS):
        while load.running:  # noqa: ASYNC110 - the last of many
            await asyncio.sleep(0.001)
    while load.free:
        load.free.popleft().close()
    async with asyncio.timeout(LAST_ANSWER_SECONDS):
        while load.open:  # noqa: ASYNC110 - all of them
            await asyncio.sleep(0)
    return found


async def _probe(port: int, request: bytes, rate: float, found: Offered, counted_from: float) -> None:
    """Ask again and again; from when it is sent, since what matters is the server's wait and not the generator's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            sent = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            if sent >= counted_from:
                found.probes.record(time.perf_counter() - sent)
            await asyncio.sleep(1 / rate)
    finally:
        writer.close()
