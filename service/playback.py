"""Plays a table into a running server over HTTP, test then train, as its clients would."""

import asyncio
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import httpx
import numpy as np

from models import (
    Alarm,
    FloatArray,
    Mask,
    Run,
    Scores,
    Table,
    events,
    label_slots,
    score_rows,
    summarise,
    summarise_streams,
)

IN_FLIGHT_MAX = 32
"""Requests at a time, at most one a stream."""
ATTEMPTS_MAX = 8
"""How often a request is sent while the server is saturated (429, 503): such an answer says that nothing was taken."""
TIMEOUT_SECONDS = 60.0
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
_SERVED = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class PlaybackError(Exception):
    """The server cannot be reached or refuses; one line, with what to do."""


class Served(NamedTuple):
    """A model as a server describes it.

    Attributes:
        name: Its name there.
        task: ``regression`` or ``classification``.
        kinds: Kind of each feature by name, in order.
        classes: Class labels in the order of probabilities (classification); empty where each stream names its own.
        columns: What else the server says about the data (``target``, ``stream_column``, ``time_column``).
    """

    name: str
    task: Any
    kinds: dict[str, Any]
    classes: tuple[Any, ...]
    columns: Mapping[str, str]


class Played(NamedTuple):
    """What a playback showed.

    Attributes:
        table: The rows.
        scored: (rows,) rows that count.
        runs: The frozen start's run and the adapted streams'.
        known_streams: Streams that the server had before and that went on from where they were.
        seconds: Wall time.
    """

    table: Table
    scored: Mask
    runs: tuple[Run, Run]
    known_streams: int
    seconds: float

    @property
    def scores(self) -> list[Scores]:
        """Figures of the frozen start and of the adapted streams over the scored rows."""
        return [summarise(run, self.table, self.scored) for run in self.runs]

    @property
    def stream_scores(self) -> list[Mapping[str, Scores]]:
        """The same by stream."""
        return [summarise_streams(run, self.table, self.scored) for run in self.runs]


def describe_model(url: str, name: str, transport: httpx.BaseTransport | None = None) -> Served:
    """Ask a server about a model.

    Raises:
        PlaybackError: It cannot be reached, or has no such model.
    """
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, transport=transport) as client:
            reply = client.get(f"/v1/models/{name}")
            if reply.status_code == httpx.codes.NOT_FOUND:
                items = client.get("/v1/models").json()["items"]
                listed = ", ".join(item["name"] for item in items) or "none"
                raise PlaybackError(f"{url} serves no model {name!r}; it serves {listed}")
            _check(reply, url)
            return _served(reply.json())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(url, error) from None
    except (ValueError, KeyError, TypeError):
        raise PlaybackError(f"{url} does not answer as acclimate does; check --url") from None


def play(
    url: str,
    model: Served,
    table: Table,
    *,
    batch: int = 1,
    delay: int = 0,
    rate: float = 0.0,
    scored: Mask | None = None,
    progress: Callable[[int], None] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Played:
    """Play a table into a server; the score is that of ``models.evaluate`` on the same rows.

    Args:
        url: The server.
        model: The model to bind new streams to.
        table: The rows. Each stream of it becomes a stream of the server.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is sent; then rows are predicted under ids that no run shares.
        rate: Rows of the file a second; 0 is as fast as it goes.
        scored: (rows,) bool, rows that count; all by default.
        progress: Told the number of rows learned so far.
        transport: How requests travel; the network by default.

    Raises:
        PlaybackError: The server cannot be reached, refuses a request, or keeps fewer predictions than wait for labels.
    """
    player = _Player(url, model, table, rate, progress)
    try:
        asyncio.run(player.play(batch, delay, transport))
    except ExceptionGroup as group:
        raise _first(group) from None
    everything = np.ones(table.rows, dtype=np.bool_)
    return player.result(everything if scored is None else scored)


def stream_id(name: str) -> str:
    """A stream's name as an id that the service takes; odd characters are replaced and a digest keeps ids apart.

    Example:
        >>> stream_id("shop-1")
        'shop-1'
        >>> stream_id("shop 1").startswith("shop_1-")
        True
    """
    if _SERVED.fullmatch(name):
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._:-]', '_', name)[:100]}-{digest}"


class _Player:
    """Sends each stream's events in order, the streams side by side, and collects the answers."""

    def __init__(
        self, url: str, model: Served, table: Table, rate: float, progress: Callable[[int], None] | None
    ) -> None:
        self.url, self.model, self.table, self.rate, self.progress = url, model, table, rate, progress
        self.values, self.targets = table.values(), table.targets()
        self.open = table.task == "classification" and not model.classes
        self.one_loss = self.open or table.task == "regression"  # of a late batch; else it follows from each answer
        self.truth = label_slots(table).astype(np.float64) if self.open else self._codes(self.targets, model.classes)
        self.predicted, self.loss, self.initial_score, self.initial_loss = np.full((4, table.rows), math.nan)
        self.batch = 1
        self.alarms: list[Alarm] = []
        self.learned_rows = 0
        self.known_streams = 0
        self.run_id = secrets.token_hex(6)
        self.began = 0.0
        self.seconds = 0.0

    async def play(self, batch: int, delay: int, transport: httpx.AsyncBaseTransport | None) -> None:
        self.batch = batch
        gate = asyncio.Semaphore(IN_FLIGHT_MAX)
        limits = httpx.Limits(max_connections=IN_FLIGHT_MAX, max_keepalive_connections=IN_FLIGHT_MAX)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=TIMEOUT_SECONDS, limits=limits, transport=transport
        ) as client:
            self.began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for code in range(len(self.table.stream_names)):
                    group.create_task(self._play_stream(client, gate, code, delay))
            self.seconds = time.perf_counter() - self.began

    async def _play_stream(self, client: httpx.AsyncClient, gate: asyncio.Semaphore, code: int, delay: int) -> None:
        name = self.table.stream_names[code]
        path = f"/v1/streams/{stream_id(name)}"
        reply = await self._send(client, gate, "PUT", path, {"model": self.model.name})
        self.known_streams += reply.status_code == httpx.codes.OK
        for event in events(np.flatnonzero(self.table.streams == code), self.batch, delay):
            if self.rate:
                due = self.began + float(event.rows[-1] + (delay if event.learn else 0)) / self.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if not event.learn:
                body: dict[str, Any] = {"inputs": self._inputs(event.rows), "ids": self._ids(event.rows)}
                self._take(event.rows, (await self._send(client, gate, "POST", f"{path}/predict", body)).json())
                continue
            if event.predict:
                body = {"inputs": self._inputs(event.rows), "targets": self._targets(event.rows)}
                sent = await self._send(client, gate, "POST", f"{path}/feedback?return=predictions", body)
                self._take(event.rows, sent.json())
            else:
                pairs = zip(self._ids(event.rows), self._targets(event.rows), strict=True)
                body = {"labels": [{"id": name, "target": target} for name, target in pairs]}
                sent = await self._send(client, gate, "POST", f"{path}/labels", body)
                self._check_taken(sent.json())
            self._learned(name, event.rows, sent.json(), spread=event.predict or self.one_loss)

    def _learned(self, name: str, rows: IntArray, learned: Mapping[str, Any], *, spread: bool) -> None:
        """Note what a batch showed; ``spread``: its mean loss stands for that of each of its rows."""
        if spread:
            self.loss[rows] = learned["loss"]
        self.initial_score[rows] = learned["initial_score"]
        self.initial_loss[rows] = learned["initial_loss"]
        self._note(name, int(rows[-1]), learned)
        self.learned_rows += len(rows)
        if self.progress is not None:
            self.progress(self.learned_rows)

    def _codes(self, labels: Sequence[Any], classes: Sequence[Any]) -> FloatArray:
        """Numbers as they are, classes by their place; -1 for none."""
        if self.table.task == "regression":
            return np.array(labels, dtype=np.float64)
        index = {(type(label), label): float(place) for place, label in enumerate(classes)}
        return np.array([index.get((type(label), label), -1.0) for label in labels])

    def _inputs(self, rows: IntArray) -> list[Any]:
        return [self.values[row] for row in rows]

    def _targets(self, rows: IntArray) -> list[Any]:
        return [self.targets[row] for row in rows]

    def _ids(self, rows: IntArray) -> list[str]:
        """Ids under which rows wait for their labels; a stream that is played again knows those of other runs."""
        return [f"{self.run_id}-{row}" for row in rows]

    def _check_taken(self, reply: Mapping[str, Any]) -> None:
        if reply["unknown"]:
            raise PlaybackError(
                f"{self.url} has dropped predictions whose labels come now: start it with a greater "
                "ACCLIMATE_PENDING_ROWS_MAX or ACCLIMATE_PENDING_DAYS, or replay with a smaller --delay"
            )

    async def _send(
        self, client: httpx.AsyncClient, gate: asyncio.Semaphore, method: str, path: str, body: Any
    ) -> httpx.Response:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with gate:
                    reply = await client.request(method, path, json=body)
            except httpx.HTTPError as error:
                raise _unreachable(self.url, error) from None
            if reply.status_code not in (429, 503) or attempt == ATTEMPTS_MAX:
                break
            await asyncio.sleep(float(reply.headers.get("retry-after", 1)))
        _check(reply, self.url)
        return reply

    def _take(self, rows: IntArray, reply: Mapping[str, Any]) -> None:
        self.predicted[rows] = self._codes(reply["predictions"], reply.get("classes", ()))
        if reply.get("probabilities") and not self.open:
            chosen = np.array(reply["probabilities"])[np.arange(len(rows)), self.truth[rows].astype(np.int64)]
            self.loss[rows] = -np.log(np.clip(chosen, 1e-12, 1.0))

    def _note(self, name: str, file_row: int, learned: Mapping[str, Any]) -> None:
        event = learned.get("drift")
        if event is None or event["kind"] != "drift":
            return
        change, statistic = event.get("change_row"), event.get("statistic")
        self.alarms.append(
            Alarm(
                stream=name,
                row=learned["rows_seen"] - 1,
                file_row=file_row,
                detector=event.get("detector") or "",
                statistic=math.nan if statistic is None else statistic,
                change_row=-1 if change is None else change,
            )
        )

    def result(self, scored: Mask) -> Played:
        initial = self.initial_score
        # a batch's mean score stands for each of its rows, so single errors are known for batches of one row only
        square = np.square(initial) if self.batch == 1 else np.full(len(initial), math.nan)
        frozen = Run("frozen start", initial, square, self.initial_loss)
        score = score_rows(self.table.task, self.predicted, self.truth)
        alarms = tuple(sorted(self.alarms, key=lambda alarm: alarm.file_row))
        adapted = Run("adapted", score, np.square(self.predicted - self.truth), self.loss, None, alarms)
        return Played(self.table, scored, (frozen, adapted), self.known_streams, self.seconds)


def _served(info: Mapping[str, Any]) -> Served:
    return Served(
        name=info["name"],
        task=info["task"],
        kinds={feature["name"]: feature["kind"] for feature in info["features"]},
        classes=tuple(info.get("classes") or ()),
        columns={key: info[key] for key in ("target", "stream_column", "time_column") if info.get(key)},
    )


def _check(reply: httpx.Response, url: str) -> None:
    if reply.is_success:
        return
    try:
        problem = reply.json()
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "it does not answer as acclimate does; check --url"
    raise PlaybackError(f"{url} answered {reply.status_code}: {detail}")


def _unreachable(url: str, error: Exception) -> PlaybackError:
    cause = str(error) or type(error).__name__
    return PlaybackError(f"{url} cannot be reached ({cause}); start it with acclimate serve, or correct --url")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
