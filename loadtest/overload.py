"""Three times as much feedback as can be taken: what is still learned, what is refused, and how health answers.

``python -m loadtest.overload``. The peak is what a closed loop reaches; then three times that is offered at a constant
rate (``loadtest.open_loop``), over so many connections that the service's queue is what fills up.
"""

import argparse
import asyncio
import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtest.http_rate import create, measured, requests_of
from loadtest.open_loop import Offered, offer
from loadtest.server import serving

QUEUE_ITEMS = 256
"""The service's limit here, so that fewer connections than the default's 4,096 reach it."""
CONNECTIONS = 1_000
TIMES = 3.0
HEALTH = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HEALTH_RATE = 50.0
GOODPUT, HEALTH_TIMES, MEMORY_TIMES = 0.8, 5.0, 1.05
"""Targets: least share of the peak; most that health's p99 and the memory may be of what they were."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what came of it; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.overload", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=2_000, help="hot streams (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of the overload (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/overload.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    allow_connections()
    environ = {"OMP_NUM_THREADS": "1", "ACCLIMATE_QUEUE_ITEMS_MAX": str(QUEUE_ITEMS)}
    with serving((), environ) as server:
        columns, names = create(server.url, given.model, given.streams)
        requests = requests_of("feedback", 1, columns, names, server.port)
        asyncio.run(measured(server.port, requests, 1.0, QUEUE_ITEMS))
        peak = asyncio.run(measured(server.port, requests, given.seconds / 3, QUEUE_ITEMS)).per_second
        idle = asyncio.run(offer(server.port, requests, 1.0, given.seconds / 3, probe=(HEALTH, HEALTH_RATE)))
        over = overloaded(server.port, requests, peak, given.seconds, 2.0, server.resident_bytes)
    result = result_of(peak, idle, over)
    print(*lines(result), sep="\n")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"cores": os.cpu_count(), **result}, indent=1) + "\n", encoding="utf-8")
    if over.limited:
        raise SystemExit("the generator itself was the limit, which says nothing of the server: repeat it undisturbed")
    if missed := missed_of(result):
        raise SystemExit(f"missed: {', '.join(missed)}")


def allow_connections() -> None:
    """Let this process open as many files as the connections need, where the system allows it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * CONNECTIONS, hard), hard))


def overloaded(
    port: int,
    requests: Sequence[bytes],
    peak: float,
    seconds: float,
    warm_seconds: float,
    watch: Callable[[], int] = lambda: 0,
) -> Offered:
    """What comes of ``TIMES`` the peak, while health is asked."""
    return asyncio.run(
        offer(
            port,
            requests,
            TIMES * peak,
            seconds,
            connections=CONNECTIONS,
            warm_seconds=warm_seconds,
            probe=(HEALTH, HEALTH_RATE),
            watch=watch,
        )
    )


def result_of(peak: float, idle: Offered, over: Offered) -> dict[str, Any]:
    """What is told, as numbers."""
    refused = over.statuses[429]
    return {
        "peak": peak,
        "offered": over.rate,
        "goodput": over.goodput,
        "refused": refused / over.seconds,
        "refused_with_retry_after": over.retry_after / refused if refused else None,
        "others": {str(status): count for status, count in over.statuses.items() if status not in {200, 429}},
        "learned_ms": [over.latency.at(share) for share in (0.5, 0.99)],
        "health_ms": [idle.probes.at(0.99), over.probes.at(0.99)],
        "resident_mb": [size / 2**20 for size in over.watched],
    }


def missed_of(result: dict[str, Any]) -> list[str]:
    """Names of the targets that are missed."""
    idle, over = result["health_ms"]
    before, after = result["resident_mb"]
    checks = {
        "goodput": result["goodput"] >= GOODPUT * result["peak"],
        "refusals with Retry-After": result["refused_with_retry_after"] == 1.0,
        "no other status": not result["others"],
        "health": over <= HEALTH_TIMES * idle,
        "memory": after <= MEMORY_TIMES * before,
    }
    return [name for name, kept in checks.items() if not kept]


def lines(result: dict[str, Any]) -> list[str]:
    """The table."""
    (idle, over), (before, after) = result["health_ms"], result["resident_mb"]
    share = result["refused_with_retry_after"]
    learned = f"{result['goodput']:,.0f} ({result['goodput'] / result['peak']:.2f})"
    return [
        "| | measured | target |",
        "| --- | ---: | ---: |",
        f"| peak, offered, per s | {result['peak']:,.0f}, {result['offered']:,.0f} | - |",
        f"| learned, per s (share of the peak) | {learned} | {GOODPUT:g} |",
        f"| refused with 429, per s | {result['refused']:,.0f} | - |",
        f"| of them with Retry-After | {'-' if share is None else f'{share:.0%}'} | 100% |",
        f"| answers of other kinds | {sum(result['others'].values())} | 0 |",
        f"| learned, p50 and p99, ms | {result['learned_ms'][0]:,.0f}, {result['learned_ms'][1]:,.0f} | - |",
        f"| health p99, idle and now, ms | {idle:.1f}, {over:.1f} ({over / idle:.1f}) | {HEALTH_TIMES:g} |",
        f"| memory, MB | {before:,.0f}, {after:,.0f} ({after / before:.2f}) | {MEMORY_TIMES:g} |",
    ]


if __name__ == "__main__":
    main()
