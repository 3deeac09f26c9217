"""One tenant beside another that sends all that its key allows, and more: what it waits, alone and beside it.

``python -m loadtest.fairness``. Tenant B predicts and gives feedback at a constant rate; in every other turn tenant A
sends at the same time, over its share of requests or of bytes, so that it is refused a part of what it sends. All at
constant rates that do not wait for answers (``loadtest.open_loop``).
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.http_rate import create, requests_of
from loadtest.open_loop import Offered, offer
from loadtest.server import serving
from service.keys import create_key

REQUESTS_PER_SECOND, BYTES_PER_SECOND = 100.0, 20_000.0
"""The stated limits: shares of A's key."""
OVER = 2.0
"""Times its share that A sends."""
LARGE_ROWS = 1_000
"""Rows of a request of the kind that uses up the share of bytes."""
TIMES_MAX = 2.0
"""Most that B may wait beside A, in units of what it waits alone."""
PREDICT_RATE, FEEDBACK_RATE = 50.0, 25.0
STREAMS, CONNECTIONS = 50, 128
QUANTILES = {"p50": 0.5, "p99": 0.99}
KINDS = ("predict", "feedback")
ATTACKS = ("many small", "few large")


class Load(NamedTuple):
    """Requests at a constant rate."""

    requests: Sequence[bytes]
    rate: float


class Turn(NamedTuple):
    """What B's requests met in a turn, by kind; and A's, where it sent."""

    own: dict[str, Offered]
    other: list[Offered]


async def turn(port: int, own: dict[str, Load], other: Sequence[Load], seconds: float) -> Turn:
    """B's loads, and A's beside them."""
    loads = [*own.values(), *other]
    found = await asyncio.gather(
        *(offer(port, load.requests, load.rate, seconds, connections=CONNECTIONS) for load in loads)
    )
    return Turn(dict(zip(own, found, strict=False)), list(found[len(own) :]))


def attacks(small: Sequence[bytes], learned: Sequence[bytes], large: Sequence[bytes]) -> dict[str, list[Load]]:
    """What A sends: many small requests of both kinds, or few large ones."""
    of_bytes = OVER * BYTES_PER_SECOND / statistics.fmean(map(len, large))
    half = OVER * REQUESTS_PER_SECOND / 2
    return dict(zip(ATTACKS, ([Load(small, half), Load(learned, half)], [Load(large, of_bytes)]), strict=True))


def result_of(name: str, turns: Sequence[tuple[Turn, Turn]]) -> dict[str, Any]:
    """B's waits, medians over turns, and their ratios turn by turn."""
    found: dict[str, Any] = {"attack": name, "kinds": {}}
    for kind in KINDS:
        found["kinds"][kind] = {
            quantile: {
                "alone_ms": statistics.median(alone.own[kind].latency.at(share) for alone, _ in turns),
                "beside_ms": statistics.median(beside.own[kind].latency.at(share) for _, beside in turns),
                "ratios": [
                    beside.own[kind].latency.at(share) / alone.own[kind].latency.at(share) for alone, beside in turns
                ],
            }
            for quantile, share in QUANTILES.items()
        }
    others = [one for _, beside in turns for one in beside.other]
    found["answered"] = sum(one.statuses[200] for one in others)
    found["refused"] = sum(one.statuses[429] for one in others)
    found["own_not_200"] = sum(
        sum(one.statuses.values()) - one.statuses[200] for pair in turns for each in pair for one in each.own.values()
    )
    return found


def missed_of(result: dict[str, Any]) -> list[str]:
    """What is above the target: medians over turns."""
    missed = [
        f"{kind} {quantile} beside {result['attack']}"
        for kind, by_quantile in result["kinds"].items()
        for quantile, found in by_quantile.items()
        if statistics.median(found["ratios"]) > TIMES_MAX
    ]
    return missed + ([f"answers to B beside {result['attack']}"] if result["own_not_200"] else [])


def lines(result: dict[str, Any]) -> list[str]:
    """Rows of the table."""
    rows = []
    for kind, by_quantile in result["kinds"].items():
        for quantile, found in by_quantile.items():
            ratios = found["ratios"]
            rows.append(
                f"| {result['attack']} | {kind} {quantile} | {found['alone_ms']:.2f} | {found['beside_ms']:.2f} | "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {TIMES_MAX:g} |"
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.fairness", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="this alone (default: all of them)")
    parser.add_argument("--rounds", type=int, default=5, help="turns alone and beside (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a turn (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/fairness.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(prefix="acclimate-fairness-") as folder:
        data_dir = Path(folder) / "data"
        _, free = create_key(data_dir, "a", "feedback")
        _, shared = create_key(
            data_dir, "a", "feedback", requests_per_second=REQUESTS_PER_SECOND, bytes_per_second=BYTES_PER_SECOND
        )
        _, own = create_key(data_dir, "b", "feedback")
        with serving((), {"OMP_NUM_THREADS": "1"}, data_dir) as server:
            columns, names = create(server.url, given.model, STREAMS, free)
            create(server.url, given.model, STREAMS, own)

            def requests(kind: str, rows: int, key: str) -> list[bytes]:
                return requests_of(kind, rows, columns, names, server.port, key)

            mine = {
                "predict": Load(requests("predict", 1, own), PREDICT_RATE),
                "feedback": Load(requests("feedback", 1, own), FEEDBACK_RATE),
            }
            theirs = attacks(
                requests("predict", 1, shared),
                requests("feedback", 1, shared),
                requests("feedback", LARGE_ROWS, shared),
            )
            asyncio.run(turn(server.port, mine, [], given.seconds / 4))  # streams and threads get warm
            print("| A sends | B's | alone, ms | beside, ms | ratio, least to greatest | target |")
            print("| --- | --- | ---: | ---: | ---: | ---: |")
            for name in given.attack or ATTACKS:
                other = theirs[name]
                pairs = [
                    (
                        asyncio.run(turn(server.port, mine, [], given.seconds)),
                        asyncio.run(turn(server.port, mine, other, given.seconds)),
                    )
                    for _ in range(given.rounds)
                ]
                results.append(result_of(name, pairs))
                print(*lines(results[-1]), sep="\n", flush=True)
    limits = {"requests_per_second": REQUESTS_PER_SECOND, "bytes_per_second": BYTES_PER_SECOND}
    stated = {"cores": os.cpu_count(), "limits": limits, "sent_times": OVER, "results": results}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    for result in results:
        print(f"{result['attack']}: {result['answered']:,} of A's requests answered, {result['refused']:,} refused")
    if missed := [name for result in results for name in missed_of(result)]:
        raise SystemExit(f"above target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
