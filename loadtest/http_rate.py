"""Requests per second of the service, in units of a bare FastAPI route on the same uvicorn, in turns in one run.

``python -m loadtest.http_rate``. The bare route parses the same JSON through pydantic and answers a constant of the
same shape. 64 connections, each of which sends its next request when the last is answered; the client is a plain
asyncio protocol in this process, lighter than either server, and says if it was the limit.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from loadtest.server import Server, free_port, running

CONNECTIONS = 64
CASES = (("predict", 1), ("predict", 32), ("feedback", 1))
"""Route and rows a request."""
TARGETS = {"predict": 0.8, "feedback": 0.5}
WARM_SECONDS = 0.5
LAST_ANSWER_SECONDS = 30.0
CLIENT_BUSY_MAX = 0.9
"""Of one core: a client that takes more is itself the limit."""


class Rate(NamedTuple):
    """What one server did in one turn: requests per second, how busy the client was, answers not 200, and all."""

    per_second: float
    client_busy: float
    refused: int
    answered: int = 0


class _Load:
    """Requests in turn, and what came back."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.requests = requests
        self.sent = self.done = self.refused = 0
        self.stopped, self.open, self.closed = False, 0, asyncio.Event()

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


class _Connection(asyncio.Protocol):
    """One request after the other; reads no more of an answer than its status and length."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.open += 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._load.open -= 1
        if self._load.open == 0:
            self._load.closed.set()

    def _send(self) -> None:
        if self._load.stopped:
            self._transport.close()
        elif isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(self._load.next())

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = self._read[:head].lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(self._read) < head + 4 + length:
            return
        self._load.done += 1
        self._load.refused += lines[0].split(b" ")[1] != b"200"
        self._read = self._read[head + 4 + length :]
        self._send()


def requests_of(
    path: str, rows: int, columns: int, names: Sequence[str], port: int, key: str | None = None
) -> list[bytes]:
    """One request a stream, ready to send, in random order; with a key, if there is one."""
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    draw = random.Random(0)  # noqa: S311 - no secret
    found = []
    for name in names:
        body: dict[str, Any] = {
            "inputs": [[round(draw.uniform(-5, 5), 6) for _ in range(columns)] for _ in range(rows)]
        }
        if path == "feedback":
            body["targets"] = [round(draw.uniform(-5, 5), 6) for _ in range(rows)]
        text = json.dumps(body).encode()
        head = (
            f"POST /v1/streams/{name}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"{authorization}content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
        )
        found.append(head.encode() + text)
    draw.shuffle(found)
    return found


async def measured(port: int, requests: Sequence[bytes], seconds: float, connections: int | None = None) -> Rate:
    """Load a server for a while, over ``CONNECTIONS`` if no other number is given."""
    load, loop = _Load(requests), asyncio.get_running_loop()
    for _ in range(connections or CONNECTIONS):
        await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port)
    await asyncio.sleep(WARM_SECONDS)
    before, began, busy = load.done, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    rate = Rate((load.done - before) / took, (time.process_time() - busy) / took, load.refused)
    load.stopped = True
    async with asyncio.timeout(LAST_ANSWER_SECONDS):
        await load.closed.wait()
    return rate._replace(answered=load.done)


@contextmanager
def bare_server() -> Iterator[Server]:
    """``loadtest.bare`` in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtest.bare", str(port)])  # noqa: S603 - our own module
    try:
        for _ in range(200):
            try:
                httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


def create(url: str, model: str, streams: int, key: str | None = None) -> tuple[int, list[str]]:
    """The model's number of inputs, and new streams of it, of the tenant of a key."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, trust_env=False, headers=headers) as client:
        columns = len(client.get(f"/v1/models/{model}").raise_for_status().json()["features"])
        names = [f"s{number}" for number in range(streams)]
        for name in names:
            client.put(f"/v1/streams/{name}", json={"model": model}).raise_for_status()
    return columns, names


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.http_rate", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=10_000, help="hot streams of predict (default: %(default)d)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server and case (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/http_rate.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    results, missed = [], []
    environ = {"OMP_NUM_THREADS": "1", "ACCLIMATE_HOT_STREAMS_MAX": str(max(given.streams, CONNECTIONS))}
    with bare_server() as bare, running((), environ) as url:
        port = int(url.rpartition(":")[2])
        columns, names = create(url, given.model, max(given.streams, CONNECTIONS))
        print("| request | bare, per s | service, per s | ratio, least to greatest | target |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for path, rows in CASES:
            chosen = names if path == "predict" else names[:CONNECTIONS]
            turns = []
            for _ in range(given.rounds):
                pair = [
                    asyncio.run(measured(at, requests_of(path, rows, columns, chosen, at), given.seconds))
                    for at in (bare.port, port)
                ]
                turns.append(pair)
            results.append(_result(path, rows, turns))
            print(line(results[-1]), flush=True)
            if results[-1]["ratio"] < TARGETS[path]:
                missed.append(f"{path} of {rows} rows")
            if results[-1]["client_busy"] > CLIENT_BUSY_MAX:
                print(f"the client itself was the limit: busy for {results[-1]['client_busy']:.0%}", file=sys.stderr)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"cores": os.cpu_count(), "cases": results}, indent=1) + "\n", encoding="utf-8")
    if missed:
        raise SystemExit(f"below target: {', '.join(missed)}")


def _result(path: str, rows: int, turns: Sequence[Sequence[Rate]]) -> dict[str, Any]:
    refused = sum(rate.refused for pair in turns for rate in pair)
    if refused:
        raise SystemExit(f"{refused} requests to {path} were not answered with 200")
    ratios = [ours.per_second / bare.per_second for bare, ours in turns]
    return {
        "path": path,
        "rows": rows,
        "bare": statistics.median(bare.per_second for bare, _ in turns),
        "service": statistics.median(ours.per_second for _, ours in turns),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "client_busy": max(rate.client_busy for pair in turns for rate in pair),
    }


def line(result: dict[str, Any]) -> str:
    """One case as a row of the table."""
    spread = f"{min(result['ratios']):.2f} to {max(result['ratios']):.2f}"
    return (
        f"| {result['path']}, {result['rows']} rows | {result['bare']:,.0f} | {result['service']:,.0f} | "
        f"{result['ratio']:.2f} ({spread}) | {TARGETS[result['path']]:g} |"
    )


if __name__ == "__main__":
    main()
