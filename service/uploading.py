"""Uploads of any length: rows become batches as they come, batches are learned and committed, and only they are told.

Of each stream, its next N rows are one batch. Batches of different streams are worked on side by side, those of one
stream one after another. What has been read and not yet learned is bounded; beyond that the client waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from models import InputError
from service.config import Settings
from service.errors import ConflictError, FieldError, InvalidError, LearnedError, SaturatedError
from service.fleet import Door
from service.lines import Line
from service.store import UploadPart
from service.types import Learned

KEEP_ROWS = 1_000
"""Rows of an upload to many streams after which it is kept how far it has got."""
FULL_SECONDS = 0.05
"""How long an upload waits where the queue of all requests is full, before it asks again."""


class Resume(NamedTuple):
    """An upload that can be taken up again: the client's name for it, and the number of the request's first row."""

    upload: str
    offset: int = 0


class Taken(NamedTuple):
    """One committed batch: ``offset`` rows of the upload, from its start, are all learned by now."""

    offset: int
    learned: Learned


@dataclass(eq=False, slots=True)
class _Stream:
    """Rows of one stream that are not learned yet: those of no batch yet, and whole batches."""

    name: str
    rows: list[Line] = field(default_factory=list)
    batches: deque[list[Line]] = field(default_factory=deque)


class Uploads:
    """Runs uploads. All methods belong to one event loop.

    Args:
        settings: At most ``batch_rows_max`` rows of an upload wait, ``tick_items_max`` of its streams are worked on.
        streams: What learns.
    """

    def __init__(self, settings: Settings, streams: Door) -> None:
        self._streams = streams
        self._rows_max = settings.batch_rows_max
        self._workers_max = settings.tick_items_max
        self._running: set[tuple[str | None, str]] = set()

    async def offset(self, upload: str, stream: str | None) -> int | None:
        """How many rows of an upload to a stream, or to many (``None``), are learned; ``None``: it is not known."""
        return await self._streams.uploaded(upload, stream)

    async def run(
        self,
        stream: str | None,
        rows: Callable[[int], AsyncIterator[list[Line]]],
        batch_rows: int,
        resume: Resume | None,
        tell: Callable[[Taken], None],
    ) -> int:
        """Learn an upload to its end.

        Args:
            stream: The stream that learns all rows; ``None``: each names its own.
            rows: The rows, by the number of the first one.
            batch_rows: Rows of a batch.
            resume: How the upload is taken up again after a cut; ``None``: it cannot be.
            tell: Called after each commit.

        Returns:
            Rows of the upload that are learned.

        Raises:
            ConflictError: The upload runs already, or a gap lies between what was learned and the first row.
            ServiceError, InputError: Of the first row or batch that was not taken; others may have been, and told.
        """
        upload = None if resume is None else resume.upload
        run = _Run(self._streams, stream, batch_rows, upload, tell, self._rows_max, self._workers_max)
        if resume is None:
            return await run.go(rows(0), 0)
        known = (stream, resume.upload)
        if known in self._running:
            raise ConflictError(f"Upload {resume.upload} is running: wait for its end, then resume it.")
        self._running.add(known)
        try:
            learned = await self.offset(resume.upload, stream) or 0
            if resume.offset > learned:
                raise ConflictError(
                    f"Upload {resume.upload} has {learned} rows, a body that begins with row {resume.offset} leaves a "
                    f"gap: send it from row {learned} on, with Upload-Offset: {learned}."
                )
            return await run.go(rows(resume.offset), learned)
        finally:
            self._running.discard(known)


class _Run:
    """One upload under way."""

    def __init__(
        self,
        streams: Door,
        stream: str | None,
        batch_rows: int,
        upload: str | None,
        tell: Callable[[Taken], None],
        rows_max: int,
        workers_max: int,
    ) -> None:
        self._service = streams
        self._stream = stream
        self._batch_rows = batch_rows
        self._upload = upload
        self._tell = tell
        self._rows_max = rows_max
        self._workers_max = workers_max
        self._unlearned: dict[str, _Stream] = {}
        self._ready: asyncio.Queue[_Stream | None] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._gathered = self._waiting = 0
        self._room = asyncio.Event()
        self._read = self._kept = self._since_kept = 0
        self._failure: Exception | None = None

    async def go(self, rows: AsyncIterator[list[Line]], learned: int) -> int:
        """Learn all rows from number ``learned`` on."""
        self._read = self._kept = learned
        try:
            async for block in rows:
                for line in block:
                    if line.number >= learned:
                        self._add(line)
                await self._wait_for_room()
                if self._failure is not None:
                    break
            else:
                self._flush()
        finally:
            await self._end()
        if self._failure is not None:
            raise self._failure
        return self._read

    def _add(self, line: Line) -> None:
        name = self._stream or line.stream or ""
        stream = self._unlearned.get(name)
        if stream is None:
            stream = self._unlearned[name] = _Stream(name)
        stream.rows.append(line)
        self._read = line.number + 1
        self._gathered += 1
        self._waiting += 1
        if len(stream.rows) >= self._batch_rows:
            self._make_batch(stream)
        elif self._gathered >= self._rows_max:
            self._flush()

    def _make_batch(self, stream: _Stream) -> None:
        self._gathered -= len(stream.rows)
        stream.batches.append(stream.rows)
        stream.rows = []
        if len(stream.batches) == 1:
            self._ready.put_nowait(stream)
            if len(self._workers) < self._workers_max and self._ready.qsize() > 0:
                self._workers.append(asyncio.get_running_loop().create_task(self._work()))

    def _flush(self) -> None:
        """Batches of what has gathered, however few rows of a stream that is."""
        for stream in self._unlearned.values():
            if stream.rows:
                self._make_batch(stream)

    async def _wait_for_room(self) -> None:
        while self._waiting - self._gathered >= self._rows_max and self._failure is None:
            self._room.clear()
            await self._room.wait()

    async def _work(self) -> None:
        """Learn one batch of whichever stream is next, again and again."""
        while (stream := await self._ready.get()) is not None:
            if self._failure is not None:
                continue
            try:
                await self._learn(stream.name, stream.batches[0])
            except Exception as error:  # noqa: BLE001 - it ends the upload, and belongs to whoever runs it
                self._failure = self._failure or error
            else:
                rows = len(stream.batches.popleft())
                self._waiting -= rows
                if stream.batches:
                    self._ready.put_nowait(stream)
                elif not stream.rows:
                    del self._unlearned[stream.name]
                await self._keep(rows)
            self._room.set()

    async def _learn(self, stream: str, batch: list[Line]) -> None:
        while batch:
            try:
                learned = await self._feedback(stream, batch)
            except LearnedError:
                start = await self._service.uploaded(self._upload or "", stream) or 0
                batch = [line for line in batch if line.number >= start]
            except SaturatedError:
                await asyncio.sleep(FULL_SECONDS)
            else:
                self._tell(Taken(self._kept if self._stream is None else batch[-1].number + 1, learned))
                return

    async def _feedback(self, stream: str, batch: list[Line]) -> Learned:
        numbers, inputs, targets, ids, times, _, models = zip(*batch, strict=True)
        if any(row is None for row in inputs) and not all(row is None for row in inputs):
            place = next(line.number for line in batch if line.input is None)
            raise InvalidError.at(("rows", place, "input"), "missing; send it for every row of a batch, or for none")
        try:
            return await self._service.feedback(
                stream,
                None if inputs[0] is None else inputs,
                targets,
                ids if any(name is not None for name in ids) else None,
                times if any(time is not None for time in times) else None,
                model=models[0],
                part=None if self._upload is None else UploadPart(self._upload, numbers[0], numbers[-1] + 1),
            )
        except (InvalidError, InputError) as error:
            raise _placed(error, numbers) from error

    async def _keep(self, rows: int) -> None:
        """Now and then, and at the end, find out up to where all rows are learned; of one stream each commit says it.

        A cut before it is kept costs no more than rows that are sent again: each stream knows how far it has got.
        """
        self._since_kept += rows
        if self._stream is None and self._since_kept >= KEEP_ROWS:
            self._since_kept = 0
            first = ((stream.batches[0] if stream.batches else stream.rows)[0] for stream in self._unlearned.values())
            self._kept = min((line.number for line in first), default=self._read)
            if self._upload is not None:
                await self._service.put_uploaded(self._upload, self._kept)

    async def _end(self) -> None:
        """Let the workers finish what they are at, and all that is ready where nothing has failed."""
        while self._failure is None and self._waiting > self._gathered:
            self._room.clear()
            await self._room.wait()
        for _ in self._workers:
            self._ready.put_nowait(None)
        await asyncio.gather(*self._workers)
        await self._keep(KEEP_ROWS)


def _placed(error: InvalidError | InputError, numbers: tuple[int, ...]) -> InvalidError:
    """What is wrong with a batch, in terms of the upload's rows."""
    names = {"inputs": "input", "targets": "target", "ids": "id", "times": "time"}
    found = error.errors if isinstance(error, InvalidError) else (FieldError(error.loc, error.reason),)
    places = []
    for loc, msg in found:
        place = loc
        if len(loc) > 1 and loc[0] in names and isinstance(loc[1], int) and loc[1] < len(numbers):
            place = ("rows", numbers[loc[1]], names[str(loc[0])], *loc[2:])
        places.append(FieldError(place, msg))
    return InvalidError(InvalidError.at(*places[0]).detail, tuple(places))
