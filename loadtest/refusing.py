"""The scenario of too much: three times the feedback that can be taken, and what becomes of it.

By the light clients of ``loadtest.http_rate`` and ``loadtest.open_loop``: httpx costs several times what a refusal
costs the server, so that it could never offer so much.
"""

import asyncio

import numpy as np

from loadtest import bodies, target
from loadtest.histogram import Histogram
from loadtest.http_rate import measured
from loadtest.open_loop import Offered
from loadtest.options import Options
from loadtest.overload import CONNECTIONS, QUEUE_ITEMS, TIMES, allow_connections, overloaded
from loadtest.report import Report, said_of_generator
from loadtest.schedule import plan

STREAMS_TIMES = 4
"""So many times the streams of other scenarios: a stream's feedback waits for its own, which is not the point here."""
PEAK_SHARE = 0.5
"""Of the time, for finding the peak."""


def overload(place: target.Place, options: Options) -> Report:
    """Feedback as fast as a closed loop gets it answered, then ``TIMES`` as much in an open loop."""
    allow_connections()
    names = target.new_names(STREAMS_TIMES * options.streams)
    requests = asyncio.run(_prepared(place, options, names))
    try:
        peak = asyncio.run(measured(place.port, requests, PEAK_SHARE * options.seconds, QUEUE_ITEMS)).per_second
        over = overloaded(place.port, requests, peak, options.seconds, options.warmup)
    finally:
        if place.lasting:
            asyncio.run(_left(place, options, names))
    return report_of(peak, over)


def report_of(peak: float, over: Offered) -> Report:
    """Goodput, refusals and health as a report."""
    refused, answered = over.statuses[429], over.statuses.total()
    lag_p99_ms = round(over.late.at(0.99), 3)
    late = said_of_generator(0.0, lag_p99_ms)  # it turns without rest, so that its share of the core says nothing
    unfounded = None if refused else f"nothing was refused: {CONNECTIONS} connections do not fill the server's queue"
    mute = f"{refused - over.retry_after} of {refused} refusals did not say when to come back"
    return Report(
        scenario="overload",
        rate_asked=round(TIMES * peak, 2),
        rate_achieved=round(over.goodput, 2),
        seconds=over.seconds,
        scheduled=round(over.rate * over.seconds),
        ok=over.statuses[200],
        outcomes={str(status): count for status, count in sorted(over.statuses.items())},
        latency=over.latency,
        service=Histogram(),
        generator={"lag_p99_ms": lag_p99_ms, "in_flight_max": CONNECTIONS},
        limited=late is not None,
        limits=tuple(
            sentence
            for sentence in (late, unfounded, mute if refused > over.retry_after else None)
            if sentence is not None
        ),
        figures={
            "peak_per_second": peak,
            "goodput_share": over.goodput / peak,
            "refused_share": refused / max(answered, 1),
            "retry_after_share": over.retry_after / refused if refused else float("nan"),
            "health_p99_ms": over.probes.at(0.99),
        },
    )


async def _prepared(place: target.Place, options: Options, names: list[str]) -> list[bytes]:
    """Streams that have learned, and one request for each."""
    rng = np.random.default_rng(options.seed)
    async with target.open_client(place, in_flight_max=16, timeout_s=options.timeout) as client:
        shape = await target.shape_of(client, options.model)
        world = bodies.World.draw(len(names), rng)
        labelled = max(options.labelled, 1)
        first = bodies.lessons(names, options.model, world, shape, labelled=labelled, rng=rng)
        await target.make_streams(client, options.model, names, first)
    schedule = plan(1.0, len(names), warmup_s=0.0, streams=len(names), zipf=0.0, feedback_share=1.0, rng=rng)
    each = schedule._replace(streams=rng.permutation(len(names)))
    requests = bodies.build(each, names, world, shape, rows=options.rows, rng=rng)
    return [request.raw(f"127.0.0.1:{place.port}") for request in requests]


async def _left(place: target.Place, options: Options, names: list[str]) -> None:
    async with target.open_client(place, in_flight_max=16, timeout_s=options.timeout) as client:
        await target.delete_streams(client, names)
