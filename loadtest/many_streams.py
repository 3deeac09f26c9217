"""A million streams, a hundred thousand of them in memory: memory, start-up, cold and hot predictions.

``python -m loadtest.many_streams``. Streams are registered by writing to a store before the server is started. Two
servers run side by side, one with few streams and one with all, and are asked in turns by one connection that waits for
each answer: what is compared is what a request costs, not how a queue grows.
"""

import argparse
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from loadtest.http_rate import requests_of
from loadtest.schedule import popularity
from loadtest.server import Server, serving
from models import Engine
from service.app import read_shipped
from service.store import STORES, Create

FEW = 1_000
HOT_SAMPLE = 64
GROUP_STREAMS = 5_000
WARM_STREAMS, WARM_SECONDS = 1_000, 60.0
TARGETS = {
    "memory of a hot stream ÷ its tensors": 1.3,
    "memory with more streams than fit ÷ before": 1.05,
    "cold p99 ÷ hot p99": 5.0,
    "start-up, all streams ÷ none": 1.3,
    "hot p50, all streams ÷ few": 1.1,
}
"""Most that each ratio may be."""


class Timed(NamedTuple):
    """How long each of some requests took, seconds."""

    seconds: np.ndarray[Any, np.dtype[np.float64]]

    def at(self, share: float) -> float:
        """A quantile, in milliseconds."""
        return float(np.quantile(self.seconds, share)) * 1e3


class Caller:
    """One connection that waits for each answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, request: bytes) -> float:
        """Seconds until the whole answer is there, which must be 200."""
        began = time.perf_counter()
        self._socket.sendall(request)
        read = b""
        while True:
            read += self._socket.recv(65_536)
            head, found, body = read.partition(b"\r\n\r\n")
            if found:
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                if len(body) >= length:
                    break
        took = time.perf_counter() - began
        if b" 200 " not in head[:16]:
            raise SystemExit(f"a request was not answered with 200: {read[:200]!r}")
        return took

    def calls(self, requests: Sequence[bytes]) -> Timed:
        """Each request once."""
        return Timed(np.array([self.call(request) for request in requests]))


def name_of(number: int) -> str:
    """A stream's id: neighbours in time are no neighbours in the store."""
    return f"{random.Random(number).getrandbits(40):010x}-{number}"  # noqa: S311 - no secret


def register(data_dir: Path, model: str, count: int) -> None:
    """New streams in the store of a server that is to be started."""
    store = STORES["sqlite"](data_dir)
    try:
        for start in range(0, count, GROUP_STREAMS):
            group = range(start, min(start + GROUP_STREAMS, count))
            store.write([Create(name_of(number), model, 1, {}, {}, 1.0) for number in group])
            print(f"\rregistered {group.stop:,} of {count:,}", end="", file=sys.stderr, flush=True)
    finally:
        store.close()
    print(file=sys.stderr)


@contextmanager
def started(data_dir: Path, hot: int) -> Iterator[tuple[Server, float]]:
    """A server on a directory, and the seconds until it was ready."""
    began = time.perf_counter()
    with serving((), {"OMP_NUM_THREADS": "1", "ACCLIMATE_HOT_STREAMS_MAX": str(hot)}, data_dir) as server:
        yield server, time.perf_counter() - began


def warm(server: Server, numbers: range, columns: int) -> None:
    """Bring streams into memory, many in a request."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=WARM_SECONDS) as client:
        for start in range(numbers.start, numbers.stop, WARM_STREAMS):
            group = range(start, min(start + WARM_STREAMS, numbers.stop))
            items = [{"stream": name_of(number), "inputs": [[0.5] * columns]} for number in group]
            client.post("/v1/predict", json={"items": items}).raise_for_status()


def start_up(folders: Sequence[Path], hot: int, rounds: int) -> list[float]:
    """The median ratio of start-up times, each directory's to the first one's, in turns."""
    took: list[list[float]] = []
    for _ in range(rounds):
        turn = []
        for folder in folders:
            with started(folder, hot) as (_, seconds):
                turn.append(seconds)
        took.append(turn)
    return [statistics.median(turn[place] / turn[0] for turn in took) for place in range(len(folders))]


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ratios, and the figures that they are made of."""
    tensors = Engine(read_shipped()[given.model]).stream_bytes
    directories = {name: folder / name for name in ("none", "few", "all")}
    for name, count in (("none", 0), ("few", FEW), ("all", given.streams)):
        register(directories[name], given.model, count)
    starts = start_up([directories["none"], directories["all"]], given.hot, given.rounds)
    columns = len(read_shipped()[given.model].spec.features)
    draw = np.random.default_rng(0)

    def asked(numbers: Sequence[int], server: Server) -> list[bytes]:
        return requests_of("predict", 1, columns, [name_of(number) for number in numbers], server.port)

    with started(directories["few"], given.hot) as (few, _), started(directories["all"], given.hot) as (all_, _):
        callers = [Caller(few.port), Caller(all_.port)]
        sample = range(HOT_SAMPLE)
        for server, caller in zip((few, all_), callers, strict=True):
            caller.calls(asked(sample, server))
        before = all_.resident_bytes()
        warm(all_, range(HOT_SAMPLE, given.hot), columns)
        full = all_.resident_bytes()
        hot: list[list[Timed]] = [[], []]
        for _ in range(given.rounds):
            for place, (server, caller) in enumerate(zip((few, all_), callers, strict=True)):
                caller.calls(asked(sample, server))
                hot[place].append(caller.calls(asked(sample, server) * (given.calls // HOT_SAMPLE)))
        cold = callers[1].calls(asked(range(given.hot, given.hot + given.calls), all_))
        after = all_.resident_bytes()
        p = popularity(given.streams, 1.0)
        zipf = callers[1].calls(asked(draw.choice(given.streams, given.calls, p=p).tolist(), all_))
    return {
        "tensors_bytes": tensors,
        "resident_mb": [size / 2**20 for size in (before, full, after)],
        "hot_ms": [[turn.at(share) for share in (0.5, 0.99)] for turn in hot[1]],
        "few_ms": [[turn.at(share) for share in (0.5, 0.99)] for turn in hot[0]],
        "cold_ms": [cold.at(share) for share in (0.5, 0.99)],
        "zipf_ms": [zipf.at(share) for share in (0.5, 0.99)],
        "ratios": {
            "memory of a hot stream ÷ its tensors": (full - before) / (given.hot - HOT_SAMPLE) / tensors,
            "memory with more streams than fit ÷ before": after / full,
            "cold p99 ÷ hot p99": cold.at(0.99) / statistics.median(turn.at(0.99) for turn in hot[1]),
            "start-up, all streams ÷ none": starts[1],
            "hot p50, all streams ÷ few": statistics.median(
                many.at(0.5) / few.at(0.5) for few, many in zip(*hot, strict=True)
            ),
        },
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The table."""
    rows = ["| | measured | target |", "| --- | ---: | ---: |"]
    rows += [f"| {name} | {value:.2f} | {TARGETS[name]:g} |" for name, value in found["ratios"].items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.many_streams", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="shipped model of the streams (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1_000_000, help="streams in the store (default: %(default)d)")
    parser.add_argument("--hot", type=int, default=100_000, help="streams kept in memory (default: %(default)d)")
    parser.add_argument("--calls", type=int, default=6_400, help="requests of a figure (default: %(default)d)")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)d)")
    parser.add_argument("--json", type=Path, default=Path("build/many_streams.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    if given.hot + given.calls > given.streams:
        parser.error("--streams is too few for so many hot ones, and calls of others")
    with tempfile.TemporaryDirectory(prefix="acclimate-many-") as folder:
        found = measure(given, Path(folder))
    print(*lines(found), sep="\n")
    sizes = {name: getattr(given, name) for name in ("model", "streams", "hot", "calls")}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"cores": os.cpu_count(), **sizes, **found}, indent=1)
    given.json.write_text(text + "\n", encoding="utf-8")
    if missed := [name for name, value in found["ratios"].items() if value > TARGETS[name]]:
        raise SystemExit(f"above target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
