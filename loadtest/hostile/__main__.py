"""``python -m loadtest.hostile``: each attack on a server of its own, beside a client that predicts.

In every other turn the attack runs, from a process of its own; the client's requests come at a constant rate that does
not wait for answers (``loadtest.open_loop``). Exit code 1 if the client's p99 beside an attack is more than twice that
alone (median over turns), if the server's memory grew by more than its bound, or if connections were left open beyond
their time.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.hostile.attacks import ATTACKS
from loadtest.http_rate import create, requests_of
from loadtest.open_loop import Offered, offer
from loadtest.options import count, number
from loadtest.server import Server, serving

LIMITS = {"head_seconds": 2.0, "body_seconds": 2.0, "reader_seconds": 2.0}
"""The server's here, so that a turn sees them end; attackers come again more often than with the defaults."""
LATE_SECONDS = 3.0
"""A connection may be open for so much longer than its limit, as its client sees it, which gets little of a core."""
CONNECTIONS_MAX = 11_000
RATE, STREAMS, CONNECTIONS = 100.0, 50, 32
TIMES_MAX = 2.0
MEMORY_MB = 16.0
"""Most that the memory may grow from the end of an attack's first turn to the end of its last."""
BEGIN_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 as said above."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.hostile", description=__doc__)
    parser.add_argument("--model", default="sinusoid", help="model of the streams (default: %(default)s)")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="this alone; may be repeated")
    parser.add_argument("--rounds", type=count(1), default=3, help="turns alone and beside (default: %(default)d)")
    parser.add_argument("--seconds", type=number(0.1), default=6.0, help="length of a turn (default: %(default)g)")
    parser.add_argument("--json", type=Path, default=Path("build/hostile.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environ = {f"ACCLIMATE_{name.upper()}": str(value) for name, value in LIMITS.items()}
    environ |= {"OMP_NUM_THREADS": "1", "ACCLIMATE_CONNECTIONS_MAX": str(CONNECTIONS_MAX)}
    results = []
    print("| attack | alone, p99 ms | beside, p99 ms | ratio, least to greatest | memory, MB | longest open, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in given.attack or ATTACKS:
        with serving((), environ) as server:
            results.append(measured(server, name, given))
        print(line(results[-1]), flush=True)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    stated = {"cores": os.cpu_count(), "limits": LIMITS, "rate": RATE, "results": results}
    given.json.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    if missed := [text for result in results for text in missed_of(result)]:
        raise SystemExit(f"above target: {', '.join(missed)}")


def measured(server: Server, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """An attack's turns."""
    columns, names = create(server.url, given.model, STREAMS)
    requests = requests_of("predict", 1, columns, names, server.port)

    def ask(seconds: float) -> Offered:
        return asyncio.run(offer(server.port, requests, RATE, seconds, connections=CONNECTIONS))

    ask(given.seconds / 2)
    turns, fates, held = [], [], [server.resident_bytes()]
    for _ in range(given.rounds):
        alone = ask(given.seconds)
        with attacking(name, server.port, given.model) as fate:
            beside = ask(given.seconds)
            held.append(server.resident_bytes())
        turns.append((alone, beside))
        fates.append(fate)
    return result_of(name, turns, fates, [size / 2**20 for size in held])


@contextmanager
def attacking(name: str, port: int, model: str) -> Iterator[dict[str, Any]]:
    """Within, the attack goes on, all its connections made; afterwards the mapping says what became of them."""
    fate: dict[str, Any] = {}
    words = [sys.executable, "-m", "loadtest.hostile.attacks", name, str(port), model]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)  # noqa: S603 - ours
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None  # it is a pipe
        assert stdout is not None
        try:
            if stdout.readline() != b"begun\n":
                log.seek(0)
                raise SystemExit(f"the attack did not begin:\n{log.read().decode()}")
            yield fate
            stdin.close()
            fate |= json.loads(stdout.readline())
            process.wait(BEGIN_SECONDS)
        finally:
            process.kill()
            process.wait()
            stdout.close()


def result_of(
    name: str, turns: Sequence[tuple[Offered, Offered]], fates: Sequence[dict[str, Any]], held_mb: Sequence[float]
) -> dict[str, Any]:
    """Medians over turns, and the ratios turn by turn."""
    p99 = [(alone.latency.at(0.99), beside.latency.at(0.99)) for alone, beside in turns]
    return {
        "attack": name,
        "clients": ATTACKS[name].clients,
        "alone_ms": statistics.median(alone for alone, _ in p99),
        "beside_ms": statistics.median(beside for _, beside in p99),
        "ratios": [beside / alone for alone, beside in p99],
        "not_200": sum(sum(one.statuses.values()) - one.statuses[200] for pair in turns for one in pair),
        "resident_mb": list(held_mb),
        "limit_seconds": LIMITS.get(ATTACKS[name].limit),
        "fates": list(fates),
    }


def missed_of(result: dict[str, Any]) -> list[str]:
    """What is above its target."""
    checks = {
        "p99": statistics.median(result["ratios"]) <= TIMES_MAX,
        "answers": not result["not_200"],
        "memory": result["resident_mb"][-1] - result["resident_mb"][1] <= MEMORY_MB,
        "time of connections": on_time(result),
    }
    return [f"{result['attack']}: {name}" for name, kept in checks.items() if not kept]


def on_time(result: dict[str, Any]) -> bool:
    """Whether connections with a limit were closed, and by then."""
    limit = result["limit_seconds"]
    return limit is None or all(
        fate["closed_by_server"] and fate["longest_seconds"] <= limit + LATE_SECONDS for fate in result["fates"]
    )


def line(result: dict[str, Any]) -> str:
    """A row of the table; memory before, after the first turn and after the last."""
    ratios, held, limit = result["ratios"], result["resident_mb"], result["limit_seconds"]
    longest = max(fate["longest_seconds"] for fate in result["fates"])
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    memory = f"{held[0]:.0f}, {held[1]:.0f}, {held[-1]:.0f}"
    return (
        f"| {result['clients']:,} {result['attack']} | {result['alone_ms']:.1f} | {result['beside_ms']:.1f} | "
        f"{spread} | {memory} | {'-' if limit is None else f'{longest:.1f} (limit {limit:g})'} |"
    )


if __name__ == "__main__":
    main()
