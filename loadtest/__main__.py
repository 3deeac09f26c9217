"""``python -m loadtest``: open-loop load on a server, its latency percentiles and the rate it achieved."""

import argparse
import asyncio
import math
import os
import platform
import selectors
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from rich.console import Console

from loadtest import scenarios, target
from loadtest.generator import run_open_loop
from loadtest.report import Report, summarize, table
from loadtest.schedule import ScheduleError, plan
from loadtest.server import ServerError, running

IN_FLIGHT_MAX = 900
"""``select`` takes file descriptors below 1,024."""


@dataclass(frozen=True)
class Options:
    """One invocation. Times in seconds, rate in requests per second; see ``--help``."""

    scenario: list[str]
    model: str
    rate: float
    seconds: float
    warmup: float
    streams: int
    zipf: float
    rows: int
    labelled: int
    feedback_share: float
    in_flight: int
    timeout: float
    seed: int


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__, allow_abbrev=False)
    add = out.add_argument
    add("--url", help="server under load (default: one of its own, on a free loopback port)")
    add("--allow-remote", action="store_true", help="allow a --url that is not this machine")
    add(
        "--scenario",
        action="append",
        choices=scenarios.SCENARIOS,
        help="may be given several times (default: predict, then feedback)",
    )
    add("--model", default="sinusoid", help="model that the streams are bound to (default: %(default)s)")
    add("--rate", type=_number(0.01), default=200.0, help="requests per second, constant (default: %(default)g)")
    add("--seconds", type=_number(0.01), default=10.0, help="length of the measured part (default: %(default)g)")
    add("--warmup", type=_number(0), default=2.0, help="seconds before it, not reported (default: %(default)g)")
    add("--streams", type=_count(1), default=100, help="number of streams (default: %(default)d)")
    add("--zipf", type=_number(0), default=0.0, help="exponent of their popularity, 0 uniform (default: %(default)g)")
    add("--rows", type=_count(1), default=1, help="rows a request (default: %(default)d)")
    add("--labelled", type=_count(0), default=8, help="rows that a stream learns beforehand (default: %(default)d)")
    add("--feedback-share", type=_number(0, 1), default=0.5, help="of the scenario mixed (default: %(default)g)")
    add(
        "--in-flight",
        type=_count(1, IN_FLIGHT_MAX + 1),
        default=256,
        help=f"most requests under way at once, up to {IN_FLIGHT_MAX} (default: %(default)d)",
    )
    add(
        "--timeout",
        type=_number(0.001),
        default=10.0,
        help="seconds that one request is waited for (default: %(default)g)",
    )
    add("--seed", type=int, default=0, help="of streams, rows and popularity (default: %(default)d)")
    add("--json", type=Path, metavar="OUT", help="write the report here as well")
    return out


async def measure(url: str, options: Options) -> list[Report]:
    """All scenarios on one server, one after the other, each on streams of its own."""
    reports = []
    async with target.open_client(url, in_flight_max=options.in_flight, timeout_s=options.timeout) as client:
        shape = await target.shape_of(client, options.model)
        for scenario in options.scenario:
            rng = np.random.default_rng(options.seed)
            schedule = plan(
                options.rate,
                options.seconds,
                warmup_s=options.warmup,
                streams=options.streams,
                zipf=options.zipf,
                feedback_share=scenarios.feedback_share(scenario, options.feedback_share),
                rng=rng,
            )
            world = scenarios.World.draw(options.streams, rng)
            names = target.new_names(options.streams)
            try:
                first = scenarios.first_rows(names, world, shape, labelled=options.labelled, rng=rng)
                await target.make_streams(client, options.model, first)
                requests = scenarios.build(schedule, names, world, shape, rows=options.rows, rng=rng)
                run = await run_open_loop(
                    schedule.at_s.tolist(),
                    target.sender(client, requests, options.timeout),
                    in_flight_max=options.in_flight,
                    timeout_s=options.timeout,
                )
            finally:
                await target.delete_streams(client, names)
            reports.append(
                summarize(scenario, options.rate, run, warmup=schedule.warmup, in_flight_max=options.in_flight)
            )
    return reports


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when every scenario got answers 2xx, 1 when one got none or the server could not be used, 2 for wrong usage.
    """
    command_line = parser()
    arguments = vars(command_line.parse_args(argv))
    url, json_path = arguments.pop("url"), arguments.pop("json")
    if not arguments.pop("allow_remote") and url is not None and not target.is_loopback(url):
        command_line.error(f"{url} is not this machine: add --allow-remote if its owner wants this load")
    options = Options(**{**arguments, "scenario": arguments["scenario"] or ["predict", "feedback"]})
    try:
        with running() if url is None else nullcontext(url) as used:
            reports = _run(used, options)
    except (target.TargetError, ServerError, ScheduleError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    console = Console()
    console.print(table(reports))
    for report in reports:
        for limit in report.limits:
            console.print(f"{report.scenario}: {limit}", highlight=False, soft_wrap=True)
    if json_path is not None:
        json_path.write_bytes(orjson.dumps(_document(url, options, reports), option=orjson.OPT_INDENT_2))
    return 0 if all(report.ok for report in reports) else 1


def _run(url: str, options: Options) -> list[Report]:
    """On a loop that waits by ``select``, whose timeouts are exact: epoll rounds them up to whole milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(measure(url, options))


def _document(url: str | None, options: Options, reports: Sequence[Report]) -> dict[str, object]:
    """The report as JSON: what was asked, where, and what came out."""
    return {
        "url": url or "own server",
        "options": vars(options),
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "reports": [report.as_json() for report in reports],
    }


def _number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Reads a number in [low, high)."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is out of bounds: {low:g} <= number < {high:g}")
        return value

    return number


def _count(low: int, high: int = 1_000_001) -> Callable[[str], int]:
    """Reads a whole number in [low, high)."""

    def count(text: str) -> int:
        value = int(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is out of bounds: {low} <= count < {high}")
        return value

    return count


if __name__ == "__main__":
    sys.exit(main())
