"""What the service does with streams, whatever way a request comes in: predict, feedback, reset, and their upkeep."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from models import InputError, Model
from service.activation import Activation
from service.batcher import Batcher
from service.bells import Bells
from service.catalogue import Catalogue
from service.config import Settings
from service.configuring import configured, same_settings
from service.errors import ConflictError, InvalidError, LearnedError, NotFoundError, UnavailableError
from service.following import Following
from service.history import History
from service.hot import DAY_SECONDS, Hot, HotStreams, Writer, summary
from service.idempotency import HEADER, KEPT_SECONDS, Asked, Turns
from service.late import LatePredictor
from service.learning import Learner, Result
from service.metrics import Metrics
from service.overview import Watch
from service.payload import Labels, Rows
from service.predicting import Answer, Predictor, Question
from service.preparing import Work
from service.registry import Registry
from service.replay import Engines
from service.starts import Starts
from service.statistics import Counts, Statistics
from service.store import Answer as StoredAnswer
from service.store import (
    Create,
    Delete,
    Done,
    Operation,
    Refusal,
    Remember,
    Snapshot,
    Store,
    StreamRecord,
    UploadPart,
)
from service.telling import log_event
from service.threads import Threads
from service.tracing import Tracer
from service.types import Event, Labelled, Learned, ModelInfo, Overview, Predicted, Row, StreamInfo
from service.views import FRESH, event_of, info_of
from service.webhooks import Calls, Webhooks

ATTEMPTS = 5
"""How often a change is tried on a stream that somebody else keeps changing."""
Models: TypeAlias = list[ModelInfo]
Infos: TypeAlias = list[StreamInfo]
Events: TypeAlias = list[Event]
Group: TypeAlias = tuple[Operation, ...]
Groups: TypeAlias = list[Group]
AllCounts: TypeAlias = list[Counts]
Answers: TypeAlias = list[Done | Refusal]


class Streams:
    """All streams of a store: the one door to learned state.

    Attributes:
        starts: The frozen starts of its models.
        watch: What has been done lately.

    Args:
        settings: Limits.
        store: Where everything is kept; closed by ``close``.
        models: Models to register, by name.
        clock: Epoch seconds.
        activate: Make the given models the active versions of their names.
        calls: How webhooks are called, if not over the network.
        main: Whether the metrics of the process are among its own.

    Raises:
        ConfigurationError: A model in the store cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        models: Mapping[str, Model],
        clock: Callable[[], float],
        *,
        activate: bool = False,
        calls: Calls | None = None,
        main: bool = True,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._registry = Registry(store, models, activate=activate)
        self._engines = Engines(self._registry, settings.device)
        self._statistics = Statistics(clock)
        self._ready = False
        self._purging: asyncio.Task[None] | None = None
        self._threads = Threads()
        self._turns = Turns()
        self.metrics = Metrics(process=main)
        self.bells = Bells(settings.event_followers_max)
        queue_items_max, tick_items_max = settings.queue_items_max, settings.tick_items_max
        self._writer: Writer = Batcher(
            "the store", self._write, queue_items_max=queue_items_max, tick_items_max=tick_items_max
        )
        self._hot = HotStreams(settings, store, self._writer, self._engines, threads=self._threads, clock=clock)
        self._learning = Learner(
            settings, store, self._writer, self._hot, threads=self._threads, clock=clock, metrics=self.metrics
        )
        self._learner: Batcher[Work, Result] = Batcher(
            "learning",
            self._learning.work,
            queue_items_max=queue_items_max,
            tick_items_max=tick_items_max,
            tick_weight_max=settings.batch_rows_max,
            key=lambda work: work.hot.record.stream,
            weight=lambda work: max(work.rows, 1) + int(work.hot.lease.engine.tick_share * settings.batch_rows_max),
        )
        self._predictor: Batcher[Question, Answer] = Batcher(
            "predictions",
            Predictor(self._threads, self._statistics, self.metrics).work,
            queue_items_max=queue_items_max,
            tick_items_max=tick_items_max,
            tick_weight_max=settings.batch_rows_max,
            weight=lambda question: len(question.inputs),
        )
        self.webhooks = Webhooks(
            store,
            self.bells,
            calls or Calls.over_network(private=settings.webhook_private),
            threads=self._threads,
            clock=clock,
            metrics=self.metrics,
            webhooks_max=settings.webhooks_max,
        )
        past = (settings, store, self._hot, self._registry, self._engines, self._commit)
        self.history = History(*past, threads=self._threads, clock=clock)
        self._activation = Activation(*past, threads=self._threads, clock=clock)
        self.starts = Starts(self._registry, self._engines, self._predictor, self._threads)
        self.catalogue = Catalogue(self._registry, self.starts, self._activation, self._threads)
        self._following = Following(
            store, self._registry, self._activation, self.bells, self.webhooks, threads=self._threads
        )
        self.metrics.gauge("queue_requests", "Requests that wait", self._waiting, "queue")
        self.metrics.gauge("queue_requests_max", "Requests that may wait", self._room, "queue")
        self.metrics.gauge("streams", "Streams in memory", lambda: {"hot": float(len(self._hot))}, "state")
        self.watch = Watch(store, self.metrics, lambda: len(self._hot), threads=self._threads, clock=clock)
        self._late = LatePredictor(
            settings, store, self._hot, self._predictor, self._learner, threads=self._threads, clock=clock
        )

    def trace(self, tracer: Tracer) -> None:
        """Tell what requests wait for; before the start."""
        self._learner.stages = self._learning.stages = tracer.stages("learning", "learn")
        self._predictor.stages = tracer.stages("predictions", "predict")
        self._writer.stages = tracer.stages("store", "commit")
        self._hot.trace(tracer)

    async def start(self) -> None:
        """Begin to serve. Streams are loaded when they are first asked for, however many there are."""
        self._writer.start()
        self._hot.start()
        self._learner.start()
        self._predictor.start()
        self._activation.start()
        self.watch.start()
        await self.webhooks.start()
        self._following.start()
        self._purging = asyncio.get_running_loop().create_task(self._purge())
        self._ready = True

    @property
    def ready(self) -> bool:
        """Whether requests are taken, and the store answers."""
        return self._ready and self._following.answers

    @property
    def shared(self) -> bool:
        """Whether other processes have the same streams."""
        return self._store.shared

    async def close(self) -> None:
        """Finish what is waiting, save what has changed, and let go of the store."""
        self._ready = False
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait([self._purging])
        await self.watch.close()
        await self._following.close()
        await self.webhooks.close()
        await self._activation.close()
        await self._learner.close()
        await self._predictor.close()
        await self._hot.close()
        await self._writer.close()
        self._threads.close()
        self._store.close()

    # --- models ---

    def models(self) -> Models:
        """All models, by name."""
        return self._registry.infos()

    def model(self, name: str) -> ModelInfo:
        """One model. Raises NotFoundError."""
        return self._registry.info(name)

    async def model_at(self, name: str, version: int | None = None) -> ModelInfo:
        """One model by one of its versions, the active one if left out. Raises NotFoundError."""
        if version is None:
            return self._registry.info(name)
        return await self._threads.load(lambda: self._registry.info_at(name, version))

    async def overview(self, after: float = 0.0) -> Overview:
        """What there is, and what was done in the intervals that end after a time (epoch seconds)."""
        self._check_ready()
        return await self.watch.overview(after)

    async def statistics(self) -> AllCounts:
        """What each version of a model that was asked has done since the start."""
        return self._statistics.counts()

    # --- streams ---

    async def put(
        self,
        stream: str,
        model: str,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[StreamInfo, bool]:
        """Create a stream, or confirm it with another config or metadata.

        Args:
            stream: Its id.
            model: Name of a model.
            config: Its own settings, replacing those before; ``None`` leaves them.
            metadata: The client's notes, replacing those before; ``None`` leaves them.

        Returns:
            The stream, and whether it was created.

        Raises:
            NotFoundError: There is no such model.
            ConflictError: The stream is bound to another model.
            InvalidError, InputError: The model does not take the config.
        """
        self._check_ready()
        active = self._registry.active(model)
        wanted = None if config is None else {name: value for name, value in config.items() if value is not None}
        for _ in range(ATTEMPTS):
            found = await self._threads.load(lambda: self._store.get(stream))
            if found is None:
                await self._check_config(model, active, wanted or {})
                create = Create(stream, model, active, wanted or {}, dict(metadata or {}), self._clock())
                answer = (await self._commit(create))[0]
                if isinstance(answer, Done):
                    return info_of(answer.record, FRESH), True
                continue
            record = found[0]
            if record.model != model:
                raise _bound(record)
            if await self._configure(record, wanted, metadata):
                return await self.get(stream), False
        raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")

    async def get(self, stream: str) -> StreamInfo:
        """Where a stream stands. Raises NotFoundError."""
        self._check_ready()
        hot = self._hot.peek(stream)
        if hot is not None:
            try:
                if await self._hot.is_current(hot):
                    return _hot_info(hot)
            finally:
                self._hot.release(hot)
        found = await self._threads.load(lambda: self._store.get(stream))
        if found is None:
            raise _unknown(stream)
        return await self._info(*found)

    async def list(
        self, prefix: str = "", model: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[Infos, str | None]:
        """Streams by id, whose id starts with ``prefix``, after ``cursor``; and the cursor of the next page."""
        self._check_ready()
        found = await self._threads.load(lambda: self._store.page(prefix, model, limit + 1, cursor or ""))
        infos = []
        for record, snapshot in found[:limit]:
            with suppress(NotFoundError):  # deleted meanwhile
                infos.append(await self._info(record, snapshot))
        return infos, found[limit - 1][0].stream if len(found) > limit else None

    async def delete(self, stream: str) -> None:
        """Remove a stream from memory and disk. Raises NotFoundError."""
        self._check_ready()
        async with self._hot.hold(stream, save=False):
            found = await self._threads.load(lambda: self._store.get(stream))
            if found is None or (await self._commit(Delete(found[0])))[0] is Refusal.GONE:
                raise _unknown(stream)
        await self._purge()

    async def reset(self, stream: str) -> StreamInfo:
        """Back to the meta-initialization; counts and known labels stay. Raises NotFoundError."""
        await self._learn(stream, None)
        return await self.get(stream)

    async def predict(
        self,
        stream: str,
        inputs: Sequence[Row],
        interval: float | None = None,
        ids: Sequence[str] | None = None,
    ) -> Predicted:
        """Predict from the last committed state; never waits for a commit, unless the rows are kept for late labels.

        Args:
            stream: Which.
            inputs: Input rows.
            interval: Coverage of intervals, in (0, 1).
            ids: One id a row: rows and answers are committed under them first, and wait for their labels.

        Raises:
            NotFoundError: There is no such stream.
            InputError, InvalidError: A row that the model cannot take, or ids that are not one a row.
            ConflictError: An id was learned already, or waits for the label of another row.
            SaturatedError: Too many requests are waiting.
            StoreFullError, UnavailableError: It could not be committed; nothing is kept.
        """
        self._check_ready()
        if ids is not None:
            return await self._late.predict(stream, inputs, ids, interval)
        for _ in range(ATTEMPTS):
            hot = await self._hot.acquire_current(stream)
            model = (hot.record.model, hot.record.model_version)
            question = Question(hot, hot.lease.engine, model, inputs, interval)
            answer = await self._hot.queue(hot, self._predictor, question)
            if not isinstance(answer, Refusal):
                return answer.predicted
        raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")

    async def predict_initial(
        self, model: str, inputs: Sequence[Row], interval: float | None = None, version: int | None = None
    ) -> Predicted:
        """What the frozen start of a model's version, the active one if left out, answers.

        Raises NotFoundError and as ``predict``.
        """
        self._check_ready()
        return await self.starts.predict(model, inputs, interval, version)

    async def feedback(
        self,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
        part: UploadPart | None = None,
        asked: Asked | None = None,
    ) -> Learned:
        """Predict, score, detect, learn, commit: the batch is taken whole or not at all, and is on disk on return.

        Args:
            stream: Which.
            inputs: Input rows; ``None`` where all ids wait for their labels.
            targets: One label a row.
            ids: One id a row; a row whose id was learned before is skipped and counted.
            times: One time a row, epoch seconds; kept with the row.
            model: What the stream has to be bound to; it is created where there is none.
            part: Where the rows stand in a resumable upload.
            asked: For a repeat of the request, for which the answer is kept with the commit.

        Raises:
            NotFoundError: There is no such stream, or no such model.
            InputError, InvalidError: A row that the model cannot take.
            ConflictError: The stream is bound to another model.
            LearnedError: Rows of the upload from ``part.start`` on were learned before.
            SaturatedError: Too many requests are waiting.
            StoreFullError, UnavailableError: It could not be committed; nothing was learned.
        """
        for name, values in (("inputs", inputs), ("ids", ids), ("times", times)):
            if values is not None and len(values) != len(targets):
                raise InvalidError.at((name,), f"{len(values)} entries for {len(targets)} targets")
        if not targets:
            raise InvalidError.at(("targets",), "empty; send at least one row")
        if inputs is not None:
            return await self._learn(stream, Rows(inputs, targets, ids, times), model, part, asked)
        if ids is None:
            raise InvalidError.at(("inputs",), "missing; send rows, or ids that all wait for their labels")
        return await self._learn(stream, Labels(ids, targets, times, strict=True), model, part, asked)

    async def feedback_once(
        self,
        asked: Asked,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
    ) -> tuple[bytes, bool]:
        """As ``feedback``, unless it was done before under the same key.

        Returns:
            The answer's JSON, and whether it is the one that was given before.

        Raises:
            ConflictError: The first request with this key is still running.
            InvalidError: It was another request that was done under this key.
        """
        self._check_ready()
        with self._turns.turn(stream, asked.key):
            since = self._clock() - KEPT_SECONDS
            for _ in range(ATTEMPTS):
                found = await self._threads.load(lambda: self._answered(stream, asked.key, since))
                if found is not None:
                    if found.digest.hex() != asked.digest:
                        raise InvalidError.at(("header", HEADER), "was used for another request; send a new key")
                    return found.body, True
                try:
                    value = await self.feedback(stream, inputs, targets, ids, times, model=model, asked=asked)
                except LearnedError:
                    continue  # another server has done it meanwhile
                if not value.accepted:  # nothing was committed that the answer could have been kept with
                    await self._remember(stream, asked, value)
                return asked.answer(value), False
            raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")

    def _answered(self, stream: str, key: str, since: float) -> StoredAnswer | None:
        found = self._store.get(stream)
        return None if found is None else self._store.answered(found[0], key, since)

    async def _remember(self, stream: str, asked: Asked, value: Learned) -> None:
        found = await self._threads.load(lambda: self._store.get(stream))
        if found is not None:
            await self._commit(Remember(found[0], asked.once(lambda _: value, self._clock())))

    async def labels(self, stream: str, ids: Sequence[str], targets: Sequence[Any]) -> Labelled:
        """Learn rows that were predicted under ids, as one batch: scored as they were answered, learned now.

        Ids that wait for no label are reported, those that were learned are counted; the others are taken.

        Args:
            stream: Which.
            ids: What the rows were predicted under.
            targets: One label an id.

        Raises:
            NotFoundError: There is no such stream.
            InputError: A label that the model cannot take.
            SaturatedError: Too many requests are waiting.
            StoreFullError, UnavailableError: It could not be committed; nothing was learned.
        """
        if len(ids) != len(targets) or not ids:
            raise InvalidError.at(("labels",), f"{len(ids)} ids and {len(targets)} targets; send one of each a row")
        try:
            answer = await self._learn(stream, Labels(ids, targets))
        except InputError as error:
            if error.loc[0] != "targets":
                raise
            raise InputError(("labels", *error.loc[1:], "target"), error.reason) from error
        if not isinstance(answer, Labelled):
            raise TypeError("labels are answered with those that nothing waits for")
        return answer

    async def uploaded(self, upload: str, stream: str | None) -> int | None:
        """How many rows of an upload a stream has got to, or (``None``) an upload to many streams.

        ``None`` where nothing is known of it. Raises NotFoundError.
        """
        self._check_ready()

        def read() -> int | None:
            if stream is None:
                return self._store.uploaded(upload, None)
            found = self._store.get(stream)
            if found is None:
                raise _unknown(stream)
            return self._store.uploaded(upload, found[0])

        return await self._threads.load(read)

    async def put_uploaded(self, upload: str, rows: int) -> None:
        """Keep that all of the first ``rows`` rows of an upload to many streams are learned."""
        now = self._clock()
        before = now - self._settings.log_days * DAY_SECONDS
        await self._threads.write(lambda: self._store.put_uploaded(upload, rows, now, before))

    async def events(self, stream: str, after: str | None = None, limit: int = 100) -> tuple[Events, str | None]:
        """Events oldest first, after the id ``after``; and the cursor of the next page. Raises NotFoundError."""
        self._check_ready()

        def read() -> Events:
            found = self._store.get(stream)
            if found is None:
                raise _unknown(stream)
            return [event_of(stream, event) for event in self._store.events(found[0], int(after or 0), limit + 1)]

        events = await self._threads.load(read)
        return events[:limit], events[limit - 1].id if len(events) > limit else None

    # --- inside ---

    def _waiting(self) -> dict[str, float]:
        return {
            "learning": float(self._learner.waiting),
            "predictions": float(self._predictor.waiting),
            "store": float(self._writer.waiting),
        }

    def _room(self) -> dict[str, float]:
        return dict.fromkeys(self._waiting(), float(self._settings.queue_items_max))

    def _check_ready(self) -> None:
        if not self._ready:
            raise UnavailableError("The service is starting or stopping: repeat the request in a second.")

    async def _learn(
        self,
        stream: str,
        given: Rows | Labels | None,
        model: str | None = None,
        part: UploadPart | None = None,
        asked: Asked | None = None,
    ) -> Learned:
        self._check_ready()
        for _ in range(ATTEMPTS):
            hot = await self._acquire(stream, model, given)
            try:
                answer = await self._hot.queue(hot, self._learner, Work(hot, given, part, asked))
            except (InputError, InvalidError, ConflictError):
                if await self._hot.is_current(hot):  # or it was refused for what the stream is no more
                    raise
                continue
            if isinstance(answer, Learned):
                if not answer.accepted and not await self._hot.is_current(hot):
                    continue  # nothing was committed that would have been refused
                return answer
            if answer is Refusal.KNOWN and asked is not None:
                raise LearnedError(f"The request with {HEADER} {asked.key} was done meanwhile.")
            if answer is Refusal.KNOWN and part is not None:
                raise LearnedError(f"Rows of upload {part.upload} from {part.start} on were learned before.")
        raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")

    async def _acquire(self, stream: str, model: str | None, given: Rows | Labels | None) -> Hot:
        """A pinned stream, bound to ``model`` if that is given, and created where there is none for what is given."""
        try:
            hot = await self._hot.acquire(stream)
        except NotFoundError:
            if model is None:
                raise
            if isinstance(given, Rows):
                await self.starts.check(model, given.inputs, given.targets)  # or a stream is left that learned nothing
            await self.put(stream, model)
            hot = await self._hot.acquire(stream)
        if model not in {None, hot.record.model}:
            self._hot.release(hot)
            raise _bound(hot.record)
        return hot

    async def _commit(self, *operations: Operation) -> Answers:
        return await self._writer.put(operations)

    async def _write(self, groups: Groups) -> Sequence[Answers | Exception]:
        """One transaction for all that is waiting."""
        operations = [operation for group in groups for operation in group]
        began = time.perf_counter()
        found = await self._threads.write(lambda: self._store.write(operations))
        self.metrics.commits.observe(time.perf_counter() - began)
        self.metrics.commit_operations.observe(len(operations))
        for answer in found:
            if isinstance(answer, Done) and answer.events:
                self.bells.ring(answer.record.stream)
                for event in answer.events:
                    self.metrics.events.labels(event.kind).inc()
                    log_event(answer.record.stream, answer.record.rows_seen, event)
        answers = iter(found)
        return [[next(answers) for _ in group] for group in groups]

    async def _purge(self) -> None:
        while await self._threads.write(self._store.purge):
            pass

    async def _check_config(self, model: str, version: int, config: Mapping[str, Any]) -> None:
        def check() -> None:
            self._engines.give_back(self._engines.lease(model, version, config))

        if config:
            await self._threads.load(check)

    async def _configure(
        self, record: StreamRecord, config: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
    ) -> bool:
        """Give a stream other settings; false if it changed meanwhile."""
        config = record.config if config is None else config
        metadata = record.metadata if metadata is None else metadata
        if same_settings(record, config, metadata):
            return True
        await self._check_config(record.model, record.model_version, config)
        async with self._hot.hold(record.stream, save=True):
            operation = await self._threads.load(
                lambda: configured(
                    self._store,
                    self._engines,
                    record.stream,
                    config=config,
                    metadata=metadata,
                    retained_rows=self._settings.retained_rows,
                    now=self._clock(),
                )
            )
            return operation is not None and isinstance((await self._commit(operation))[0], Done)

    async def _info(self, record: StreamRecord, snapshot: Snapshot | None) -> StreamInfo:
        """A stream that was read from the store; it is loaded only where its snapshot is behind."""
        if record.stream_version == 0:
            return info_of(record, FRESH | {"state": record.state})
        if snapshot is not None and snapshot.revision == record.stream_version:
            return info_of(record, {**snapshot.status, "state": record.state})  # rows without labels may have moved it
        hot = await self._hot.acquire_current(record.stream)
        try:
            return _hot_info(hot)
        finally:
            self._hot.release(hot)


def _hot_info(hot: Hot) -> StreamInfo:
    return info_of(hot.record, summary(hot.lease.engine.status(hot.slot)))


def _bound(record: StreamRecord) -> ConflictError:
    return ConflictError(
        f"Stream {record.stream} is bound to model {record.model}: delete it first, or choose another id."
    )


def _unknown(stream: str) -> NotFoundError:
    return NotFoundError(f"There is no stream {stream}: create it with PUT first.")
