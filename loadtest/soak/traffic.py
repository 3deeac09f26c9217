"""Mixed traffic: each client has a part to play, and plays it again and again until told to stop."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from loadtest.crash.workload import Model, label, row, score

SERVER_ERRORS = 500
REQUESTS_OF_A_CONNECTION = 50
"""After so many a client goes, and comes back with another connection."""
UPLOAD_LINES, UPLOAD_BATCH = 96, 16
FOLLOW_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0
BREAK_SECONDS = 1.0
"""Longest pause between two turns of a part."""
WRONG = {
    "inputs": [["far too", "many", "values", "in", "this", "row", "for", "any", "model", "of", "ours", 1, 2, 3, 4]]
}


@dataclass
class Tally:
    """What came back: statuses by part, and what should not have happened."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, part: str, answer: httpx.Response, allowed: Sequence[int]) -> None:
        """Count an answer, whose status has to be one of these."""
        self.statuses.setdefault(part, Counter())[answer.status_code] += 1
        if answer.status_code not in allowed:
            self.wrong.append(f"{part}: {answer.status_code} {answer.text[:200]}")

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(sum(each.values()) for each in self.statuses.values())

    def as_json(self) -> dict[str, dict[str, int]]:
        """Answers by part and status."""
        return {
            part: {str(status): count for status, count in sorted(each.items())} for part, each in self.statuses.items()
        }


class Traffic:
    """All clients of a run.

    Args:
        url: The server.
        models: What streams are bound to, in turns.
        streams: Streams that last; more than the server keeps in memory, so that they are evicted and come back.
        seed: Of all choices.
        tally: Told of each answer.
    """

    def __init__(self, url: str, models: Sequence[Model], streams: int, seed: int, tally: Tally) -> None:
        self._url = url
        self._models = models
        self._names = [f"soak-{number}" for number in range(streams)]
        self._seed = seed
        self._tally = tally
        self._stopped = asyncio.Event()

    async def run(self, copies: int) -> None:
        """Play all parts, each by so many clients, until ``stop``."""
        async with self._client() as client:
            for number, name in enumerate(self._names):
                answer = await client.put(f"/v1/streams/{name}", json={"model": self._model(number).name})
                self._tally.count("create", answer, (201,))
        parts: list[Callable[[httpx.AsyncClient, np.random.Generator, int], Awaitable[None]]] = [
            self._mix,
            self._come_and_go,
            self._late,
            self._many,
            self._upload,
            self._follow,
            self._past,
            self._look,
        ]
        plays = [
            self._play(part, np.random.default_rng((self._seed, place, copy)), (place, copy))
            for copy in range(copies)
            for place, part in enumerate(parts)
        ]
        await asyncio.gather(*plays)

    def stop(self) -> None:
        """Each client ends with the turn that it is in."""
        self._stopped.set()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=TIMEOUT_SECONDS)

    def _model(self, number: int) -> Model:
        return self._models[number % len(self._models)]

    async def _play(
        self,
        part: Callable[[httpx.AsyncClient, np.random.Generator, int], Awaitable[None]],
        rng: np.random.Generator,
        who: tuple[int, int],
    ) -> None:
        turns = itertools.count(who[1] * 10**9)
        while not self._stopped.is_set():
            async with self._client() as client:
                for _ in range(REQUESTS_OF_A_CONNECTION):
                    try:
                        await part(client, rng, next(turns))
                    except httpx.TransportError as error:
                        self._tally.wrong.append(f"{part.__name__}: {type(error).__name__} {error}")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopped.wait(), float(rng.uniform(0, BREAK_SECONDS / 10)))
                    if self._stopped.is_set():
                        return

    def _any(self, rng: np.random.Generator) -> tuple[int, str]:
        """A stream: some are asked often, most seldom."""
        number = min(int(rng.zipf(1.3)) - 1, len(self._names) - 1) if rng.random() < 0.5 else None
        number = int(rng.integers(len(self._names))) if number is None else number
        return number, f"/v1/streams/{self._names[number]}"

    def _lesson(self, number: int, rng: np.random.Generator, rows: int) -> dict[str, Any]:
        model = self._model(number)
        inputs = [row(model, rng) for _ in range(rows)]
        return {
            "inputs": inputs,
            "targets": [label(model, 2 * score(each) + 0.1 * float(rng.normal())) for each in inputs],
        }

    async def _mix(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """Predictions, feedback, repeats and mistakes."""
        number, path = self._any(rng)
        lesson = self._lesson(number, rng, int(rng.integers(1, 9)))
        answer = await client.post(f"{path}/predict", json={"inputs": lesson["inputs"]})
        self._tally.count("predict", answer, (200,))
        headers = {"Idempotency-Key": f"mix-{turn}"} if rng.random() < 0.2 else {}
        for _ in range(1 + bool(headers)):
            answer = await client.post(f"{path}/feedback", json=lesson, headers=headers)
            self._tally.count("feedback", answer, (200,))
        if rng.random() < 0.05:
            self._tally.count("mistake", await client.post(f"{path}/feedback", json=WRONG), (422,))

    async def _come_and_go(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """A stream that is created, taught, asked and deleted."""
        path = f"/v1/streams/passing-{turn}"
        answer = await client.put(path, json={"model": self._model(turn).name, "metadata": {"turn": turn}})
        self._tally.count("create", answer, (201,))
        answer = await client.post(f"{path}/feedback", json=self._lesson(turn, rng, 4))
        self._tally.count("feedback", answer, (200,))
        self._tally.count("delete", await client.delete(path), (204,))
        self._tally.count("gone", await client.get(path), (404,))

    async def _late(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """Predictions whose labels come later, all but some of them."""
        number, path = self._any(rng)
        lesson = self._lesson(number, rng, 4)
        ids = [f"late-{turn}-{place}" for place in range(4)]
        answer = await client.post(f"{path}/predict", json={"inputs": lesson["inputs"], "ids": ids})
        self._tally.count("predict with ids", answer, (200,))
        labels = [{"id": name, "target": target} for name, target in zip(ids, lesson["targets"], strict=True)]
        self._tally.count("labels", await client.post(f"{path}/labels", json={"labels": labels[:3]}), (200,))

    async def _many(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """Several streams in one request."""
        del turn
        numbers = {int(each) for each in rng.integers(len(self._names), size=8)}
        items = [{"stream": self._names[number], **self._lesson(number, rng, 2)} for number in sorted(numbers)]
        self._tally.count("many", await client.post("/v1/feedback", json={"items": items}), (200,))

    async def _upload(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """An upload in pieces that is cut now and then, and taken up again."""
        number, path = self._any(rng)
        lesson = self._lesson(number, rng, UPLOAD_LINES)
        pairs = zip(lesson["inputs"], lesson["targets"], strict=True)
        text = [json.dumps({"input": given, "target": target}).encode() + b"\n" for given, target in pairs]
        headers = {"content-type": "application/x-ndjson", "Upload-Id": f"soak-{turn}"}

        async def body(stop: int) -> AsyncIterator[bytes]:
            for start in range(0, stop, UPLOAD_BATCH):
                yield b"".join(text[start : start + UPLOAD_BATCH])
                await asyncio.sleep(0)

        for stop in (UPLOAD_LINES // 2, UPLOAD_LINES):
            answer = await client.post(f"{path}/feedback?batch={UPLOAD_BATCH}", content=body(stop), headers=headers)
            self._tally.count("upload", answer, (200,))

    async def _follow(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """Follow a stream's events for a while, and go without a word."""
        del turn
        _, path = self._any(rng)
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(float(rng.uniform(0.1, FOLLOW_SECONDS))),
                client.stream("GET", f"{path}/events", headers={"accept": "text/event-stream"}) as answer,
            ):
                self._tally.statuses.setdefault("follow", Counter())[answer.status_code] += 1
                async for _ in answer.aiter_lines():
                    if self._stopped.is_set():
                        return

    async def _past(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """Back to the start, back to a revision, out as a file and in again."""
        number, path = self._any(rng)
        await asyncio.sleep(float(rng.uniform(0, BREAK_SECONDS)))
        if turn % 3 == 0:
            self._tally.count("reset", await client.post(f"{path}/reset"), (200,))
        elif turn % 3 == 1:
            revision = (await client.get(path)).json()["stream_version"]
            answer = await client.post(f"{path}/rollback", json={"revision": revision})
            self._tally.count("roll back", answer, (200,))
        else:
            answer = await client.get(f"{path}/snapshot")
            self._tally.count("export", answer, (200,))
            copy = f"/v1/streams/copy-{number}-{turn}"
            headers = {"content-type": answer.headers["content-type"]}
            self._tally.count(
                "import", await client.put(f"{copy}/snapshot", content=answer.content, headers=headers), (201,)
            )
            self._tally.count("delete", await client.delete(copy), (204,))

    async def _look(self, client: httpx.AsyncClient, rng: np.random.Generator, turn: int) -> None:
        """What operators ask."""
        del turn
        await asyncio.sleep(float(rng.uniform(0, BREAK_SECONDS)))
        _, path = self._any(rng)
        for place in ("/readyz", "/metrics", "/v1/models", "/v1/streams?limit=50", path, f"{path}/revisions?limit=20"):
            self._tally.count("look", await client.get(place), (200,))
