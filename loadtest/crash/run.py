"""The run: load, SIGKILL, restart, check, repeat; then the same operations on a server that lives."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from loadtest.crash.history import History, differences
from loadtest.crash.workload import Model, Operation, operation, probe
from loadtest.server import command, free_port, wait_ready

EVENTS_MAX = 1_000
JITTER_SECONDS = 0.02
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """One run.

    Attributes:
        cycles: How often the server is killed.
        streams: Streams that are fed at the same time.
        seed: Decides operations and moments.
        kill_after: Least and most changes asked and answered between a start and a kill.
        arguments: Further words for ``acclimate serve``.
    """

    cycles: int = 20
    streams: int = 8
    seed: int = 0
    kill_after: tuple[int, int] = (20, 400)
    arguments: tuple[str, ...] = ()


@dataclass
class Report:
    """What came of a run; it passed if there are no ``violations``."""

    kills: int = 0
    operations: int = 0
    unanswered: int = 0
    survived: int = 0
    predictions: int = 0
    restart_seconds: list[float] = field(default_factory=list)
    worst_difference: float = 0.0
    violations: list[str] = field(default_factory=list)


class Killed(Exception):  # noqa: N818 - an event, not an error
    """The server is gone: a request got no answer."""


@contextmanager
def server(data_dir: Path, arguments: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A ready server on a data directory; on leaving it is killed, if it still runs.

    Raises:
        ServerError: It did not become ready.
    """
    port, log = free_port(), data_dir.with_suffix(".log")
    words = [*command(port, data_dir), *arguments]
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ))  # noqa: S603 - ours
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, process, log)
            yield url, process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


class Cycle:
    """One life of the server: feed all streams until it is killed.

    Args:
        client: Talks to it.
        models: What the streams are bound to, in turns.
        histories: One a stream; updated.
        report: Updated.
        seed: Seed of the run.
        kill: Called once, at the moment that ``countdown`` changes asked or answered have gone by.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        models: list[Model],
        histories: list[History],
        report: Report,
        *,
        seed: int,
        countdown: int,
        kill: Callable[[], object],
    ) -> None:
        self._client = client
        self._models = models
        self._histories = histories
        self._report = report
        self._seed = seed
        self._countdown = countdown
        self._kill = kill

    async def run(self) -> None:
        """Return when the server is dead and every client has noticed."""
        await asyncio.gather(
            *(self._feed(number) for number in range(len(self._histories))),
            *(self._watch(number) for number in range(len(self._histories))),
        )

    def _tick(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self._kill()

    def _model(self, number: int) -> Model:
        return self._models[number % len(self._models)]

    async def _post(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """An answer 200; ``Killed`` where none came."""
        try:
            answer = await self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise Killed from error
        if answer.status_code != httpx.codes.OK:
            self._report.violations.append(f"{path}: status {answer.status_code} under load: {answer.text[:200]}")
            raise Killed
        return dict(answer.json())

    async def _feed(self, number: int) -> None:
        """One client: one operation after another, the unanswered one of the last life first."""
        history, path = self._histories[number], f"/v1/streams/stream-{number}"
        try:
            if history.pending is not None:
                await self._repeat(number, path, history.pending)
            while True:
                history.pending = operation(self._model(number), self._seed, number, len(history.done))
                await self._change(number, path, history.pending)
        except Killed:
            return

    async def _change(self, number: int, path: str, asked: Operation) -> None:
        self._tick()
        answer = await self._post(path + route(asked), asked.body)
        self._note(number, self._histories[number].acknowledge(asked, answer))
        self._report.operations += 1
        self._tick()

    async def _repeat(self, number: int, path: str, asked: Operation) -> None:
        """Send the unanswered feedback again: if it was committed, its ids say so."""
        history = self._histories[number]
        if not history.done or history.done[-1] is not asked:
            await self._change(number, path, asked)
            return
        answer = await self._post(path + route(asked), asked.body)
        if (answer["accepted"], answer["duplicates"]) != (0, asked.rows):
            self._note(number, [f"operation {asked.number} was learned again after the restart"])
        history.pending = None

    async def _watch(self, number: int) -> None:
        """Another client of the stream: what it reads never goes back behind what was acknowledged."""
        history = self._histories[number]
        body = probe(self._model(number), self._seed)
        try:
            while True:
                least = history.version
                answer = await self._post(f"/v1/streams/stream-{number}/predict", body)
                self._report.predictions += 1
                if answer["stream_version"] < least:
                    self._note(number, [f"predicted from revision {answer['stream_version']} after {least}"])
                history.version = max(history.version, answer["stream_version"])
        except Killed:
            return

    def _note(self, number: int, wrong: list[str]) -> None:
        self._report.violations += [f"stream-{number}: {each}" for each in wrong]


async def run(options: Options, directory: Path) -> Report:
    """All cycles, and the comparison.

    Args:
        options: What to do.
        directory: An empty directory for both servers' data and logs.
    """
    report = Report()
    histories = [History() for _ in range(options.streams)]
    rng = np.random.default_rng((options.seed, 10**9))
    for _ in range(options.cycles):
        began = time.monotonic()
        with server(directory / "killed", options.arguments) as (url, process):
            report.restart_seconds.append(time.monotonic() - began)
            async with connected(url) as client:
                await recover(client, histories, report)
                if report.violations:
                    return report
                kill = partial(asyncio.get_running_loop().call_later, rng.uniform(0, JITTER_SECONDS), process.kill)
                countdown = int(rng.integers(*options.kill_after))
                models = await served(client)
                life = Cycle(client, models, histories, report, seed=options.seed, countdown=countdown, kill=kill)
                await life.run()
                report.kills += 1
    with server(directory / "killed", options.arguments) as (url, _):
        async with connected(url) as client:
            await recover(client, histories, report)
            found = [await ending(client, options.seed, number) for number in range(options.streams)]
    with server(directory / "living", options.arguments) as (url, _):
        async with connected(url) as client:
            feeding = (feed(client, number, history) for number, history in enumerate(histories))
            await asyncio.gather(*feeding)
            expected = [await ending(client, options.seed, number) for number in range(options.streams)]
    for number, (here, there) in enumerate(zip(found, expected, strict=True)):
        wrong, worst = differences(here, there)
        report.worst_difference = max(report.worst_difference, worst)
        report.violations += [f"stream-{number}: {each}" for each in wrong]
    return report


def connected(url: str) -> httpx.AsyncClient:
    """A client of a server on this machine."""
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)


def route(asked: Operation) -> str:
    """Where an operation is sent."""
    return "/reset" if asked.body is None else "/feedback"


async def served(client: httpx.AsyncClient) -> list[Model]:
    """All served models."""
    return [Model.of(each) for each in (await client.get("/v1/models")).raise_for_status().json()["items"]]


async def create(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    """A stream, made or found."""
    models = await served(client)
    body = {"model": models[number % len(models)].name}
    return dict((await client.put(f"/v1/streams/stream-{number}", json=body)).raise_for_status().json())


async def recover(client: httpx.AsyncClient, histories: list[History], report: Report) -> None:
    """Create or look at every stream; count what happened to operations without an answer."""
    for number, history in enumerate(histories):
        found = await create(client, number)
        before = len(history.done)
        report.unanswered += history.pending is not None
        report.violations += [f"stream-{number}: {each}" for each in history.recover(found)]
        report.survived += len(history.done) - before


async def feed(client: httpx.AsyncClient, number: int, history: History) -> None:
    """Everything that was committed, in its order."""
    await create(client, number)
    for each in history.done:
        (await client.post(f"/v1/streams/stream-{number}{route(each)}", json=each.body)).raise_for_status()


async def ending(client: httpx.AsyncClient, seed: int, number: int) -> dict[str, Any]:
    """Where a stream stands: its description, all its events, and what it predicts next."""
    path = f"/v1/streams/stream-{number}"
    models = await served(client)
    body = probe(models[number % len(models)], seed)
    events = (await client.get(path + "/events", params={"limit": EVENTS_MAX})).raise_for_status().json()
    return {
        "info": (await client.get(path)).raise_for_status().json(),
        "events": events["items"],
        "predicted": (await client.post(path + "/predict", json=body)).raise_for_status().json(),
    }
