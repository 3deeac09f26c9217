"""Rows per CPU-second of the server's processes, with one worker and with several, in turns.

``python -m loadtest.workers``. CPU time, user and system, of the supervisor and all workers counts, so that it does not
matter how many cores are free. 256 connections in a closed loop ask for streams at random: with two workers every
second request is for a stream of the other one.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtest.http_rate import create, measured, requests_of
from loadtest.server import Server, serving

CASES = (("feedback", 1), ("feedback", 32), ("predict", 1), ("predict", 32))
"""Route and rows a request."""
TARGET = 0.85
CONNECTIONS = 256
STREAMS = 1_024


def spent(server: Server, requests: Sequence[bytes], rows: int, seconds: float) -> float:
    """Rows per CPU-second of a while of load."""
    before = server.cpu_seconds()
    rate = asyncio.run(measured(server.port, requests, seconds, CONNECTIONS))
    if rate.refused:
        raise SystemExit(f"{rate.refused} requests were not answered with 200")
    return rate.answered * rows / (server.cpu_seconds() - before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.workers", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[2], help="numbers set beside one (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server and case (default: %(default)d)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/workers.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    numbers = [1, *given.workers]
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        environ = {"OMP_NUM_THREADS": "1"}
        servers = [stack.enter_context(serving(("--workers", str(number)), environ)) for number in numbers]
        made = [create(server.url, given.model, STREAMS) for server in servers]
        print("| request | workers | rows per CPU-second | ÷ one worker's (range) | target |")
        print("| --- | ---: | ---: | ---: | ---: |", flush=True)
        for path, rows in CASES:
            turns = []
            for turn in range(given.rounds):
                rates = []
                for server, (columns, names) in zip(servers, made, strict=True):
                    chosen = random.Random(turn).sample(names, CONNECTIONS)  # noqa: S311 - no secret
                    requests = requests_of(path, rows, columns, chosen, server.port)
                    rates.append(spent(server, requests, rows, given.seconds))
                turns.append(rates)
            found = _results(path, rows, numbers, turns)
            results += found
            print(*map(line, found), sep="\n", flush=True)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"cores": os.cpu_count(), "cases": results}, indent=1) + "\n", encoding="utf-8")
    missed = [f"{case['path']} of {case['rows']} rows" for case in results if case["ratio"] < TARGET]
    if missed:
        sys.exit(f"below target: {', '.join(missed)}")


def _results(path: str, rows: int, numbers: Sequence[int], turns: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    found = []
    for place, number in enumerate(numbers):
        ratios = [rates[place] / rates[0] for rates in turns]
        rate = statistics.median(rates[place] for rates in turns)
        stated = {"path": path, "rows": rows, "workers": number, "rate": rate}
        found.append({**stated, "ratio": statistics.median(ratios), "ratios": ratios})
    return found


def line(result: dict[str, Any]) -> str:
    """One case as a row of the table."""
    low, high = min(result["ratios"]), max(result["ratios"])
    target = "-" if result["workers"] == 1 else f"{TARGET:g}"
    return (
        f"| {result['path']}, {result['rows']} rows | {result['workers']} | {result['rate']:,.0f} | "
        f"{result['ratio']:.2f} ({low:.2f} to {high:.2f}) | {target} |"
    )


if __name__ == "__main__":
    main()
