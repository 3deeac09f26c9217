"""The attacks, in a process of their own: ``python -m loadtest.hostile.attacks NAME PORT MODEL``.

Prints a line when it has begun, goes on until standard input ends, and then prints what became of its connections. Its
clients begin one after the other. It takes what processor time others leave: attackers have machines of their own.
"""

import asyncio
import gzip
import itertools
import json
import os
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
TRICKLE_SECONDS = 0.2
"""Between two bytes of a slow client."""
CHUNK_SECONDS = 0.002
CHUNK = b"10000\r\n" + b"1" * 65_536 + b"\r\n"
PAUSE_SECONDS = 0.1
"""Before a client that was refused comes again."""
READ_BYTES = 65_536
SPREAD_SECONDS = 2.0
"""In which the clients begin; ten thousand take five times as long."""
CLIENTS_A_SPREAD = 2_000
NICE = 15
PIPELINED = 32
ESTABLISHED = 1
"""A connection's state (tcp(7)); what the server has closed with a request unread is reset."""


@dataclass
class Fate:
    """What became of an attack's connections.

    Attributes:
        opened: How many there were.
        lives: Seconds that each was open which the server closed.
        statuses: What was answered, by status; 0: closed without an answer.
        bytes_sent: All together.
    """

    opened: int = 0
    lives: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bytes_sent: int = 0

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "opened": self.opened,
            "closed_by_server": len(self.lives),
            "longest_seconds": max(self.lives, default=0.0),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "mb_sent": self.bytes_sent / 2**20,
        }


Sent = AsyncIterator[bytes]


class Attack(NamedTuple):
    """So many clients, each of which sends this, and comes again once the server has closed.

    Attributes:
        clients: How many.
        sends: What a client sends.
        reads: Whether it reads what is answered.
        limit: Name of the setting that ends such a connection; empty where an answer does.
        settles: Whether it has begun when its clients are answered, and not when they are connected.
    """

    clients: int
    sends: Callable[[str], Sent]
    reads: bool = True
    limit: str = ""
    settles: bool = False


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def slow_head(_model: str) -> Sent:
    """A head that goes on, a header at a time (slowloris)."""
    yield b"GET /livez HTTP/1.1\r\n" + HOST
    for number in itertools.count():
        yield b"X-%d: a\r\n" % number
        await asyncio.sleep(TRICKLE_SECONDS)


async def slow_body(model: str) -> Sent:
    """A body that goes on, a byte at a time."""
    path = f"POST /v1/models/{model}/predict HTTP/1.1\r\n".encode()
    yield path + HOST + JSON + b"Content-Length: 1000000\r\n\r\n"
    while True:
        yield b" "
        await asyncio.sleep(TRICKLE_SECONDS)


async def silent_body(model: str) -> Sent:
    """Half a body."""
    yield f"POST /v1/models/{model}/predict HTTP/1.1\r\n".encode() + HOST + JSON + b"Content-Length: 1000\r\n\r\n {"
    await _for_ever()


async def slow_reader(_model: str) -> Sent:
    """Requests for a long answer, of which none is read: as many as a connection may have waiting."""
    yield (b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * PIPELINED
    await _for_ever()


async def endless_chunks(model: str) -> Sent:
    """A body in chunks, without an end; all clients together fill a network of a gigabit."""
    yield f"POST /v1/models/{model}/predict HTTP/1.1\r\n".encode() + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield CHUNK
        await asyncio.sleep(CHUNK_SECONDS)


async def gzip_bomb(model: str) -> Sent:
    """A small body that would become large, to the routes that read compressed ones."""
    yield f"POST /v2/models/{model}/infer HTTP/1.1\r\n".encode() + HOST + JSON + b"Content-Encoding: gzip\r\n"
    yield b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
    await _for_ever()


async def header_flood(_model: str) -> Sent:
    """A head of headers without an end, as fast as they are taken."""
    yield b"GET /livez HTTP/1.1\r\n" + HOST
    for number in itertools.count():
        yield b"".join(b"X-%d-%d: %s\r\n" % (number, place, b"a" * 40) for place in range(100))


async def idle(_model: str) -> Sent:
    """A request, and then nothing."""
    yield b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
    await _for_ever()


async def silent(_model: str) -> Sent:
    """Nothing at all."""
    yield b""
    await _for_ever()


BOMB = gzip.compress(b"0" * 2**26)
ATTACKS = {
    "slow heads": Attack(500, slow_head, limit="head_seconds"),
    "slow bodies": Attack(500, slow_body, limit="body_seconds"),
    "silent bodies": Attack(500, silent_body, limit="body_seconds"),
    "slow readers": Attack(20, slow_reader, reads=False, limit="reader_seconds"),
    "endless chunks": Attack(4, endless_chunks),
    "gzip bombs": Attack(20, gzip_bomb),
    "header floods": Attack(20, header_flood),
    "idle connections": Attack(10_000, idle, settles=True),
    "silent connections": Attack(500, silent, limit="head_seconds"),
}
"""By name."""


async def client(port: int, attack: Attack, model: str, fate: Fate, wait_seconds: float) -> None:
    """One client, again and again."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(wait_seconds)
    while True:
        with socket.socket() as sock:
            sock.setblocking(False)  # noqa: FBT003 - the standard library's
            if not attack.reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            with suppress(OSError):
                await loop.sock_connect(sock, ("127.0.0.1", port))
                fate.opened += 1
                began = time.monotonic()
                await _meet(sock, attack, model, fate)
                fate.lives.append(time.monotonic() - began)
        await asyncio.sleep(PAUSE_SECONDS)


async def _meet(sock: socket.socket, attack: Attack, model: str, fate: Fate) -> None:
    """One connection, until the server closes it or, for a client that is refused at once, has answered."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        async for part in attack.sends(model):
            await loop.sock_sendall(sock, part)
            fate.bytes_sent += len(part)

    sending = asyncio.create_task(send())
    try:
        if not attack.reads:
            while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(PAUSE_SECONDS)
            return
        with suppress(ConnectionError):
            first = await loop.sock_recv(sock, READ_BYTES)
            fate.statuses[int(first.split(b" ", 2)[1]) if first else 0] += 1
            while first:
                first = await loop.sock_recv(sock, READ_BYTES)
            return
        fate.statuses[0] += 1
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled():
            sending.exception()


async def main(name: str, port: int, model: str) -> None:
    """Attack until standard input ends."""
    attack, fate = ATTACKS[name], Fate()
    os.nice(NICE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    spread = SPREAD_SECONDS * max(attack.clients / CLIENTS_A_SPREAD, 1.0) / attack.clients
    clients = [
        asyncio.create_task(client(port, attack, model, fate, spread * place)) for place in range(attack.clients)
    ]
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)

    def begun() -> int:
        return sum(fate.statuses.values()) if attack.settles else fate.opened

    while begun() < attack.clients and not ended.is_set():  # noqa: ASYNC110 - of many
        await asyncio.sleep(PAUSE_SECONDS)
    print("begun", flush=True)
    await ended.wait()
    print(json.dumps(fate.as_json()), flush=True)
    for task in clients:
        task.cancel()
    await asyncio.wait(clients)


if __name__ == "__main__":
    asyncio.run(partial(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])())
