"""Requests at a constant rate over httpx: what several scenarios have in common."""

from collections.abc import Sequence
from dataclasses import replace

import httpx
import numpy as np

from loadtest import bodies, target
from loadtest.generator import run_open_loop
from loadtest.options import Options
from loadtest.report import Report, summarize
from loadtest.schedule import Schedule, ScheduleError, plan


async def asked(
    name: str, place: target.Place, options: Options, *, feedback_share: float, streams: int, zipf: float
) -> Report:
    """Requests to new streams, each of which has learned a few rows.

    Args:
        name: Of the scenario.
        place: The server.
        options: Rate, times, rows and the rest.
        feedback_share: Share of the requests that are feedback, in [0, 1].
        streams: Number of streams, >= 1.
        zipf: Exponent of their popularity.
    """
    rng = np.random.default_rng(options.seed)
    schedule = plan(
        options.rate,
        options.seconds,
        warmup_s=options.warmup,
        streams=streams,
        zipf=zipf,
        feedback_share=feedback_share,
        rng=rng,
    )
    return await _run(name, place, options, schedule, streams, rng)


async def asked_cold(name: str, place: target.Place, options: Options) -> Report:
    """Predictions, each by a stream of its own that has left memory: so many others have learned after it.

    The number of streams is that of the requests and of the server's hot streams together.

    Raises:
        ScheduleError: The streams would learn nothing, so that nothing had to be brought back.
    """
    if not options.labelled:
        raise ScheduleError("cold streams need rows that they have learned: raise --labelled")
    rng = np.random.default_rng(options.seed)
    schedule = plan(
        options.rate, options.seconds, warmup_s=options.warmup, streams=1, zipf=0.0, feedback_share=0.0, rng=rng
    )
    requests = schedule.at_s.size
    return await _run(name, place, options, schedule._replace(streams=np.arange(requests)), requests, rng, cold=True)


async def _run(
    name: str,
    place: target.Place,
    options: Options,
    schedule: Schedule,
    streams: int,
    rng: np.random.Generator,
    *,
    cold: bool = False,
) -> Report:
    async with target.open_client(place, in_flight_max=options.in_flight, timeout_s=options.timeout) as client:
        shape = await target.shape_of(client, options.model)
        others = await target.limit_of(client, "hot_streams_max") if cold else 0
        names, world = target.new_names(streams + others), bodies.World.draw(streams + others, rng)
        try:
            await _teach(client, options, names[:streams], world, shape, rng)
            await _teach(client, options, names[streams:], world, shape, rng)
            requests = bodies.build(schedule, names, world, shape, rows=options.rows, rng=rng)
            return await drive(client, name, place, options, schedule, requests)
        finally:
            if place.lasting:
                await target.delete_streams(client, names)


async def _teach(
    client: httpx.AsyncClient,
    options: Options,
    names: Sequence[str],
    world: bodies.World,
    shape: bodies.Shape,
    rng: np.random.Generator,
) -> None:
    first = (
        bodies.lessons(names, options.model, world, shape, labelled=options.labelled, rng=rng)
        if options.labelled
        else []
    )
    await target.make_streams(client, options.model, names, first)


async def drive(
    client: httpx.AsyncClient,
    name: str,
    place: target.Place,
    options: Options,
    schedule: Schedule,
    requests: Sequence[bodies.Request],
) -> Report:
    """Send the requests of a schedule, and report; ``cpu_ms`` is what one of them cost the server, warm-up included."""
    before = place.cpu_seconds()
    run = await run_open_loop(
        schedule.at_s.tolist(),
        target.sender(client, requests, options.timeout),
        in_flight_max=options.in_flight,
        timeout_s=options.timeout,
    )
    cpu_ms = (place.cpu_seconds() - before) / len(requests) * 1e3
    report = summarize(name, options.rate, run, warmup=schedule.warmup, in_flight_max=options.in_flight)
    return replace(report, figures={"cpu_ms": cpu_ms})
