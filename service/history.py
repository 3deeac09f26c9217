"""A stream's past: what was learned when, back to it, and the whole stream out of and into a file."""

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import orjson

from models import SnapshotError
from service.config import Settings
from service.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from service.hot import HotStreams
from service.past_rows import rows_before
from service.payload import decode_state
from service.registry import Registry
from service.replay import Engines
from service.restoring import Imported, entries_of, exported, revision_before, rolled_back
from service.store import STATE_KINDS, Configure, Create, Done, Entry, Operation, Refusal, Store, StreamRecord
from service.threads import Threads
from service.types import LearnedRow, Revision
from service.views import moment

Answers = list[Done | Refusal]


class History:
    """Looks at streams' logs, and puts states in place.

    Args:
        settings: ``retained_rows``.
        store: Where the logs are.
        streams: Those in memory.
        registry: Models that files are checked against.
        engines: What makes states.
        commit: Commits operations in one transaction.
        threads: Where the work is done.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        streams: HotStreams,
        registry: Registry,
        engines: Engines,
        commit: Callable[..., Awaitable[Answers]],
        *,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._retained_rows = settings.retained_rows
        self._store = store
        self._streams = streams
        self._registry = registry
        self._engines = engines
        self._commit = commit
        self._threads = threads
        self._clock = clock

    async def revisions(self, stream: str, after: int, limit: int) -> tuple[list[Revision], str | None]:
        """What was committed when, oldest first, after a revision; and the cursor of the next page.

        Raises:
            NotFoundError: There is no such stream.
        """

        def read() -> list[Revision]:
            record = self._record(stream)
            return [_revision(entry) for entry in islice(entries_of(self._store, record, after), limit + 1)]

        found = await self._threads.load(read)
        return found[:limit], str(found[limit - 1].revision) if len(found) > limit else None

    async def rows(self, stream: str, before: int | None, limit: int) -> tuple[list[LearnedRow], str | None]:
        """Rows that were learned, latest first, before a row's number; and the cursor of the next page.

        Raises:
            NotFoundError: There is no such stream.
            DamagedError: The log is not what was written.
        """
        found = await self._threads.load(lambda: rows_before(self._store, self._record(stream), before, limit + 1))
        return found[:limit], str(found[limit - 1].row) if len(found) > limit else None

    async def roll_back(self, stream: str, revision: int | None, before: float | None) -> int:
        """Take a stream back to a revision, or to the last one before a time (epoch seconds), as a new revision.

        Returns:
            The revision that it went back to.

        Raises:
            NotFoundError: There is no such stream.
            InvalidError: There is no such revision, or it is no longer kept.
            DamagedError: The log is not what was written.
        """
        async with self._streams.hold(stream, save=False):

            def compute() -> tuple[int, Operation]:
                record = self._record(stream)
                to = revision_before(self._store, record, before or 0.0) if revision is None else revision
                now, rows = self._clock(), self._retained_rows
                return to, rolled_back(self._store, self._engines, record, to, retained_rows=rows, now=now)

            restored, operation = await self._threads.restore(compute)
            await self._done(stream, operation)
        return restored

    async def export(self, stream: str) -> bytes:
        """A stream as one safetensors file, as of its last commit. Raises NotFoundError, DamagedError."""
        hot = await self._streams.acquire_current(stream)
        try:
            record, engine, state = hot.record, hot.lease.engine, hot.lease.engine.copy(hot.slot)
            return await self._threads.predict(lambda: exported(record, engine, engine.pack(state)))
        finally:
            self._streams.release(hot)

    async def restore(self, stream: str, data: bytes) -> bool:
        """Give a stream the state of a file, with its config and metadata; whether the stream was created.

        Raises:
            ConflictError: The stream is bound to another model, or the file's model is not served in its version.
            InvalidError, InputError: The bytes are no file of a stream, damaged, or state what no stream has.
        """
        given = await self._threads.restore(lambda: _read(data, self._registry))
        async with self._streams.hold(stream, save=False):
            found = await self._threads.load(lambda: self._store.get(stream))
            now = self._clock()
            if found is None:
                blank = StreamRecord(0, stream, given.model, given.version, {}, {}, 0, 0, b"", "new", None, now, now)
                await self._threads.restore(lambda: given.put(self._engines, blank, now))  # before anything is made
                create = Create(stream, given.model, given.version, given.config, given.metadata, now)
                record = await self._done(stream, create)
                await self._done(stream, await self._threads.restore(lambda: given.put(self._engines, record, now)))
                return True
            before = found[0]
            if before.model != given.model:
                raise ConflictError(f"Stream {stream} is bound to model {before.model}, the file's is {given.model}.")
            at = max(now, before.updated_at)
            record = before._replace(config=given.config, metadata=given.metadata, updated_at=at)
            put = await self._threads.restore(lambda: given.put(self._engines, record, now))
            await self._done(stream, Configure(before, given.config, given.metadata, at), put)
            return False

    def _record(self, stream: str) -> StreamRecord:
        found = self._store.get(stream)
        if found is None:
            raise NotFoundError(f"There is no stream {stream}: create it with PUT first.")
        return found[0]

    async def _done(self, stream: str, *operations: Operation) -> StreamRecord:
        answer = (await self._commit(*operations))[-1]
        if not isinstance(answer, Done):
            raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")
        return answer.record


def _read(data: bytes, registry: Registry) -> Imported:
    try:
        return Imported(data, registry)
    except SnapshotError as error:
        raise InvalidError.at(("body",), str(error)) from error


def _revision(entry: Entry) -> Revision:
    """A log entry as the API shows it."""
    stated: dict[str, Any] = {}
    if entry.kind in STATE_KINDS:
        stated = decode_state(entry.payload)[0]
    elif entry.rows:
        stated = orjson.loads(entry.payload)
    outcome = stated.get("outcome", {})
    figures = {name: _finite(outcome.get(name)) for name in ("loss", "score", "initial_loss", "initial_score")}
    return Revision(
        revision=entry.revision,
        kind=entry.kind,
        at=moment(entry.at),
        rows=entry.rows,
        rows_seen=entry.first_row + entry.rows,
        **figures,
        state=outcome.get("state"),
        restored=stated.get("restored"),
        model_version=stated.get("model_version"),
    )


def _finite(value: float | str | None) -> float | None:
    """A figure as it is logged: what is not finite is text there."""
    return None if isinstance(value, str) else value
