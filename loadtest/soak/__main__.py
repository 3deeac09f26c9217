"""``python -m loadtest.soak``: a server of its own under mixed traffic, and what it held meanwhile.

Exit code 1 if memory, descriptors or threads grew by more than their bounds after the warm-up (the first third), or if
anything was answered otherwise than it should have been.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from loadtest.crash.workload import Model
from loadtest.options import count, number
from loadtest.server import Server, serving
from loadtest.soak.picture import draw
from loadtest.soak.traffic import Tally, Traffic
from loadtest.soak.watch import BOUNDS, MINUTES_MIN, WARM_SHARE, Sample, Slope, lines, look, slopes

SAMPLES = 360
"""In a run."""
HOT_STREAMS = 64
"""The server's limit here, so that streams are evicted all the time."""
WRONG_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak", description=__doc__)
    parser.add_argument("--minutes", type=number(0.01), default=30.0, help="length (default: %(default)g)")
    parser.add_argument("--streams", type=count(1), default=400, help="streams that last (default: %(default)d)")
    parser.add_argument("--copies", type=count(1), default=2, help="clients of each part (default: %(default)d)")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (default: %(default)d)")
    parser.add_argument("--json", type=Path, default=Path("build/soak.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    tally = Tally()
    with serving((), {"ACCLIMATE_HOT_STREAMS_MAX": str(HOT_STREAMS)}) as server:
        samples = asyncio.run(soaked(server, given, tally))
    found = slopes(samples)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(result_of(given, samples, found, tally), indent=1) + "\n", encoding="utf-8")
    draw(samples, found, given.json.with_suffix(".png"))
    print(f"{tally.requests:,} requests in {given.minutes:g} minutes, {len(tally.wrong)} of them answered wrongly\n")
    print(*lines(found), sep="\n")
    if tally.wrong:
        raise SystemExit("\n".join(["answered wrongly:", *tally.wrong[:WRONG_SHOWN]]))
    if given.minutes < MINUTES_MIN:
        print(f"\na run of less than {MINUTES_MIN:g} minutes does not tell whether anything grows")
    elif grown := [slope.name.replace("_", " ") for slope in found if not slope.kept]:
        raise SystemExit(f"grows: {', '.join(grown)}")


async def soaked(server: Server, given: argparse.Namespace, tally: Tally) -> list[Sample]:
    """Traffic for the stated time, and samples at even times; the first when the clients have begun."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        models = [Model.of(item) for item in (await client.get("/v1/models")).raise_for_status().json()["items"]]
    traffic = Traffic(server.url, models, given.streams, given.seed, tally)
    began, every = time.monotonic(), 60.0 * given.minutes / SAMPLES
    playing = asyncio.create_task(traffic.run(given.copies))
    samples = [look(server, 0.0)]
    while samples[-1].seconds < 60.0 * given.minutes and not playing.done():
        await asyncio.sleep(max(began + every * len(samples) - time.monotonic(), 0.0))
        samples.append(look(server, time.monotonic() - began))
    traffic.stop()
    await playing
    return samples


def result_of(
    given: argparse.Namespace, samples: Sequence[Sample], found: Sequence[Slope], tally: Tally
) -> dict[str, Any]:
    """All figures."""
    return {
        "cores": os.cpu_count(),
        "minutes": given.minutes,
        "streams": given.streams,
        "hot_streams_max": HOT_STREAMS,
        "warm_share": WARM_SHARE,
        "bounds_per_minute": BOUNDS,
        "slopes": [slope.as_json() for slope in found],
        "answers": tally.as_json(),
        "wrong": tally.wrong,
        "samples": [[round(value, 2) for value in sample] for sample in samples],
    }


if __name__ == "__main__":
    main()
