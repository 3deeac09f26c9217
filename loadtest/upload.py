"""Uploads: how many rows a second are learned, and how long a batch that comes at its time takes to be committed.

A client that reads while it writes, as httpx does not over HTTP/1.1: it begins to read when all is written.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

import numpy as np
import orjson

from loadtest import bodies, target
from loadtest.generator import on_exact_loop
from loadtest.histogram import Histogram
from loadtest.options import Options
from loadtest.report import Report, said_of_generator

IN_FLIGHT = 512
"""Most batches that are sent and not committed: with more, the sockets' buffers are what fills up."""
END_SECONDS = 30.0
"""What is left of an upload has to be committed within this time."""


class Uploaded(NamedTuple):
    """What came of one upload. Times in seconds after its start.

    Attributes:
        commits: When, and how many rows of the upload were committed by then; ascending.
        late_s: How long after it could have left each batch did leave.
        cpu_share: Processor time of this process over the upload's wall time.
        batches: That were sent.
    """

    commits: list[tuple[float, int]]
    late_s: list[float]
    cpu_share: float
    batches: int


async def send(port: int, batch_rows: int, sent: Iterator[tuple[float, bytes]], until_s: float) -> Uploaded:
    """One upload to ``POST /v1/feedback``: batches at their times, until the next one would be due too late.

    Args:
        port: On the loopback address.
        batch_rows: Lines of a batch.
        sent: Batches without end, and when each is due. One waits for no answer but when ``IN_FLIGHT`` are missing.
        until_s: Length of the upload.

    Raises:
        TargetError: The server did not take all of it.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began, cpu_began = time.perf_counter(), time.process_time()
    late_s: list[float] = []
    places = asyncio.Semaphore(IN_FLIGHT)

    async def write() -> None:
        writer.write(
            f"POST /v1/feedback?batch={batch_rows} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        taken_s = 0.0
        for due, batch in sent:
            full = places.locked()
            await places.acquire()
            if full:
                taken_s = time.perf_counter() - began
            wait_s = due - (time.perf_counter() - began)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            now_s = time.perf_counter() - began
            if max(due, now_s) >= until_s:
                break
            late_s.append(max(now_s - max(due, taken_s), 0.0))
            writer.write(b"%x\r\n%b\r\n" % (len(batch), batch))
            await writer.drain()
            taken_s = time.perf_counter() - began
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def read() -> list[tuple[float, int]]:
        commits, rows = [], 0
        async with aclosing(_answers(reader)) as answers:
            async for answer in answers:
                if "done" not in answer:
                    rows += answer["accepted"]
                    for _ in range(answer["batches"]):
                        places.release()
                    commits.append((time.perf_counter() - began, rows))
                elif not answer["done"]:
                    raise target.TargetError(f"the upload ended early: {answer['error']['detail']}")
        return commits

    writing = asyncio.create_task(write())
    try:
        async with asyncio.timeout(until_s + END_SECONDS):
            _, commits = await asyncio.gather(writing, read())
    except (OSError, EOFError) as error:
        raise target.TargetError(f"the upload was cut ({type(error).__name__}): is the server running?") from error
    finally:
        writing.cancel()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    wall_s = time.perf_counter() - began
    return Uploaded(commits, late_s, (time.process_time() - cpu_began) / wall_s, len(late_s))


async def _answers(reader: asyncio.StreamReader) -> AsyncGenerator[dict[str, Any], None]:
    """The lines of a chunked answer 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, _, headers = head.lower().partition(b"\r\n")
    if b" 200 " not in status:
        length = int(headers.partition(b"content-length:")[2].split(b"\r\n")[0])
        raise target.TargetError(f"the upload was refused: {(await reader.readexactly(length)).decode()[:300]}")
    text = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        *lines, text = (text + await reader.readexactly(size)).split(b"\n")
        await reader.readexactly(2)
        for line in lines:
            yield orjson.loads(line)


def rows_per_second(commits: Sequence[tuple[float, int]], from_s: float, to_s: float) -> float:
    """Rows committed between the first and the last commit of a span, per second; NaN if there are fewer than two."""
    inside = [commit for commit in commits if from_s <= commit[0] <= to_s]
    if len(inside) < 2:
        return float("nan")
    (first_s, first), (last_s, last) = inside[0], inside[-1]
    return (last - first) / max(last_s - first_s, 1e-9)


def committed_s(commits: Sequence[tuple[float, int]], batches: int, batch_rows: int) -> list[float]:
    """When each batch was committed: that of number n when n + 1 batches' rows were.

    Where two batches of different streams overtake each other their times are exchanged, not lost.
    """
    at_s, rows = np.array(commits).T
    found: list[float] = at_s[np.searchsorted(rows, np.arange(1, batches + 1) * batch_rows)].tolist()
    return found


def upload(place: target.Place, options: Options) -> Report:
    """As fast as the server takes it, for rows a second; then at ``rate`` batches a second, for the time of each."""
    return on_exact_loop(_upload(place, options))


async def _upload(place: target.Place, options: Options) -> Report:
    rng = np.random.default_rng(options.seed)
    async with target.open_client(place, in_flight_max=16, timeout_s=options.timeout) as client:
        shape = await target.shape_of(client, options.model)
        names, world = target.new_names(options.streams), bodies.World.draw(options.streams, rng)
        batches = [
            bodies.lines(name, options.model, *world.rows(number, options.batch, shape, rng))
            for number, name in enumerate(names)
        ]
        until_s = options.warmup + options.seconds
        try:
            before = place.cpu_seconds()
            at_once = ((0.0, batch) for batch in itertools.cycle(batches))
            free = await send(place.port, options.batch, at_once, until_s)
            cpu_s = place.cpu_seconds() - before
            in_time = ((number / options.rate, batch) for number, batch in enumerate(itertools.cycle(batches)))
            paced = await send(place.port, options.batch, in_time, until_s)
        finally:
            if place.lasting:
                await target.delete_streams(client, names)
    figures = {
        "rows_per_second": rows_per_second(free.commits, options.warmup, until_s),
        "cpu_us_row": cpu_s / max(free.batches * options.batch, 1) * 1e6,
    }
    return _report(options, free, paced, figures)


def _report(options: Options, free: Uploaded, paced: Uploaded, figures: dict[str, float]) -> Report:
    warmup = min(round(options.rate * options.warmup), paced.batches - 1)
    ended_s = committed_s(paced.commits, paced.batches, options.batch)[warmup:]
    latency = Histogram.of(at_s - (warmup + number) / options.rate for number, at_s in enumerate(ended_s))
    seconds = max(ended_s[-1] - warmup / options.rate, len(ended_s) / options.rate)
    lag_p99_ms = round(Histogram.of(paced.late_s[warmup:]).at(0.99), 3)
    cpu_share = max(free.cpu_share, paced.cpu_share)
    said = said_of_generator(cpu_share, lag_p99_ms)
    return Report(
        scenario="upload",
        rate_asked=options.rate,
        rate_achieved=round(len(ended_s) / seconds, 2),
        seconds=round(seconds, 3),
        scheduled=len(ended_s),
        ok=len(ended_s),
        outcomes={"200": len(ended_s)},
        latency=latency,
        service=latency,
        generator={"lag_p99_ms": lag_p99_ms, "cpu_share": round(cpu_share, 3)},
        limited=said is not None,
        limits=() if said is None else (said,),
        figures=figures,
    )
