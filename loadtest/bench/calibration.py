"""What the machine can do at the moment: the bare FastAPI route of ``loadtest.bare`` under the same clients."""

import asyncio
from typing import NamedTuple

import numpy as np

from loadtest import bodies
from loadtest.generator import on_exact_loop
from loadtest.histogram import Histogram
from loadtest.http_rate import CONNECTIONS, measured
from loadtest.options import Options
from loadtest.report import Report
from loadtest.schedule import plan
from loadtest.scheduled import drive
from loadtest.target import Place, open_client

SHARE = 0.5
"""Of a scenario's time, for the open loop; half of this again for the closed one."""
SHAPE = bodies.Shape(kinds=("numeric",), classes=(), outputs=0)
"""The bare route's rows, those of the sinusoid."""


class Calibration(NamedTuple):
    """The units of what is measured next.

    Attributes:
        latency: Of predictions at the scenarios' rate, by their client.
        per_second: Requests of a closed loop of 64 connections.
        cpu_ms: Processor time of one of these.
        limited: Whether the generator itself was the limit.
    """

    latency: Histogram
    per_second: float
    cpu_ms: float
    limited: bool

    def as_json(self) -> dict[str, float | bool]:
        """Plain values."""
        p50, p99 = (self.latency.at(share) for share in (0.5, 0.99))
        return {
            "p50_ms": p50,
            "p99_ms": p99,
            "per_second": self.per_second,
            "cpu_ms": self.cpu_ms,
            "limited": self.limited,
        }


def calibrate(bare: Place, options: Options) -> Calibration:
    """Measure the bare route by an open loop, for latencies, and by a closed one, whose rate and CPU are steadier."""
    seconds = SHARE * options.seconds
    rng = np.random.default_rng(options.seed)
    names, world = [f"s{number}" for number in range(options.streams)], bodies.World.draw(options.streams, rng)
    schedule = plan(
        options.rate,
        seconds,
        warmup_s=options.warmup,
        streams=options.streams,
        zipf=0.0,
        feedback_share=0.0,
        rng=rng,
    )
    requests = bodies.build(schedule, names, world, SHAPE, rows=options.rows, rng=rng)

    async def opened() -> Report:
        async with open_client(bare, in_flight_max=options.in_flight, timeout_s=options.timeout) as client:
            return await drive(client, "bare", bare, options, schedule, requests)

    report = on_exact_loop(opened())
    before = bare.cpu_seconds()
    raw = [request.raw(f"127.0.0.1:{bare.port}") for request in requests]
    rate = asyncio.run(measured(bare.port, raw, SHARE * seconds, CONNECTIONS))
    return Calibration(
        report.latency, rate.per_second, (bare.cpu_seconds() - before) / rate.answered * 1e3, report.limited
    )
