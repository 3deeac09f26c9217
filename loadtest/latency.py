"""Latency of predictions at half the rate that can be kept, beside a bare FastAPI route's at the same rate.

``python -m loadtest.latency``. Both servers on the same uvicorn, in turns in one run, at a constant rate that does not
wait for answers (``loadtest.open_loop``).
"""

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.http_rate import bare_server, create, measured, requests_of
from loadtest.open_loop import Offered, offer
from loadtest.server import serving

TARGETS = {"p50": 2.5, "p99": 3.0}
"""Most that the service's quantile may be of the bare route's."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the closed loop's rate: the greatest that is kept is the highest sustainable one."""
KEPT, KEPT_MS = 0.98, 50.0
"""A rate is kept if so much of it is answered, 99% of it within this time."""


def highest(port: int, requests: Sequence[bytes], seconds: float) -> float:
    """The highest rate of a grid that is kept, requests per second."""
    most = asyncio.run(measured(port, requests, seconds)).per_second
    for share in SHARES:
        found = asyncio.run(offer(port, requests, share * most, seconds))
        if found.goodput >= KEPT * share * most and found.latency.at(0.99) <= KEPT_MS:
            return share * most
    return SHARES[-1] * most / 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.latency", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1_000, help="hot streams (default: %(default)d)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/latency.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    turns: list[tuple[Offered, Offered]] = []
    with bare_server() as bare, serving((), {"OMP_NUM_THREADS": "1"}) as server:
        columns, names = create(server.url, given.model, given.streams)
        ours = requests_of("predict", 1, columns, names, server.port)
        rate = highest(server.port, ours, given.seconds) / 2
        others = requests_of("predict", 1, columns, names, bare.port)
        for _ in range(given.rounds):
            pair = [
                asyncio.run(offer(port, requests, rate, given.seconds))
                for port, requests in ((bare.port, others), (server.port, ours))
            ]
            turns.append((pair[0], pair[1]))
    result = result_of(rate, turns)
    print(*lines(result), sep="\n")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"cores": os.cpu_count(), **result}, indent=1) + "\n", encoding="utf-8")
    if any(one.limited for pair in turns for one in pair):
        raise SystemExit("the generator itself was the limit, which says nothing of the servers: repeat it undisturbed")
    if missed := [name for name, target in TARGETS.items() if result["ratios"][name] > target]:
        raise SystemExit(f"above target: {', '.join(missed)}")


def result_of(rate: float, turns: Sequence[tuple[Offered, Offered]]) -> dict[str, Any]:
    """Medians over the turns, and the ratios turn by turn."""
    shares = {"p50": 0.5, "p99": 0.99}

    def median(place: int, share: float) -> float:
        return statistics.median(pair[place].latency.at(share) for pair in turns)

    return {
        "rate": rate,
        "bare_ms": {name: median(0, share) for name, share in shares.items()},
        "service_ms": {name: median(1, share) for name, share in shares.items()},
        "late_ms": statistics.median(one.late.at(0.99) for pair in turns for one in pair),
        "ratios": {
            name: statistics.median(ours.latency.at(share) / bare.latency.at(share) for bare, ours in turns)
            for name, share in shares.items()
        },
        "histograms": [[one.latency.as_json() for one in pair] for pair in turns],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table."""
    rows = [
        f"{result['rate']:,.0f} requests/s; 99% were sent within {result['late_ms']:.2f} ms of their time",
        "",
        "| latency | bare, ms | service, ms | ratio | target |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    return rows + [
        f"| {name} | {result['bare_ms'][name]:.2f} | {result['service_ms'][name]:.2f} | {result['ratios'][name]:.2f} | "
        f"{target:g} |"
        for name, target in TARGETS.items()
    ]


if __name__ == "__main__":
    main()
