"""One tick of changes: look up ids, step together, commit together, then serve together."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from models import Engine, Feedback, InputShift, Outcome, Tick, Turn
from service.config import Settings
from service.errors import ServiceError
from service.hot import DAY_SECONDS, Hot, HotStreams, Writer
from service.metrics import Metrics
from service.pace import BRIEF_SECONDS, LONG_SECONDS, Load, Pace
from service.payload import Rows, encode_feedback, finite
from service.pending import Held, decode_held, scored
from service.preparing import Prepared, Unlabelled, Work, prepare
from service.store import Append, Done, Pend, Refusal, Store, StoredEvent
from service.threads import Threads
from service.tracing import Stages
from service.types import Labelled, Learned
from service.views import learned, nothing_new

RESET = b"{}"
INPUTS = "inputs"
"""Detector that an event names where the inputs have moved."""


class _Computed(NamedTuple):
    """What one item does to its stream: what to commit and the state to serve afterwards."""

    work: Work
    kept: list[int]
    unknown: list[str] | None
    operation: Append | Pend
    tick: Tick
    outcome: Outcome | None


Result = Learned | Done | Refusal
"""An answer (``Done`` to rows that are kept without labels), or why nothing was changed."""


class Learner:
    """Works on ticks of feedback and of rows to keep. A tick has at most one item of a stream.

    Attributes:
        stages: Told when a tick is computed; ``None``: nobody asks.

    Args:
        settings: Ids are known for ``retained_rows`` rows, predictions wait for ``pending_days`` for their labels.
        store: Asked for learned ids and for predictions that wait.
        writer: Commits.
        streams: Told of what was learned, and of streams that the store refused.
        threads: Where the work is done.
        clock: Epoch seconds.
        metrics: Told of ticks and of labels.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        streams: HotStreams,
        *,
        threads: Threads,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._writer = writer
        self._streams = streams
        self._threads = threads
        self._clock = clock
        self._pace = Pace()
        self._metrics = metrics
        self.stages: Stages | None = None
        self._labels = {name: metrics.labels.labels(name) for name in ("learned", "duplicate", "unknown")}
        self._retained_rows = settings.retained_rows
        self._pending_seconds = settings.pending_days * DAY_SECONDS

    async def work(self, works: list[Work]) -> list[Result | Exception]:
        """Learn, commit, serve; nothing of an item is served if its commit did not happen.

        A tick that should be brief is learned on the event loop: in a thread each of its small operations gives up the
        interpreter's lock and has to get it again from the loop.
        """
        now = self._clock()
        loads = _loads(works)

        def compute() -> list[_Computed | Result | Exception]:
            began = time.thread_time()
            found = self._compute(works, now)
            seconds = time.thread_time() - began
            self._pace.took(loads, seconds)
            self._metrics.learning.observe(seconds)
            self._metrics.learning_items.observe(len(works))
            return found

        brief = all(isinstance(work.given, Rows) and not work.ids for work in works)  # ids are looked up on disk
        seconds = self._pace.seconds(loads)
        if brief and seconds <= BRIEF_SECONDS:
            results = compute()
        else:
            results = await self._threads.learn(compute, long=seconds > LONG_SECONDS)
        if self.stages is not None:
            self.stages.stage("step")
        computed = [result for result in results if isinstance(result, _Computed)]
        committed: Sequence[Done | Refusal | Exception] = []
        if computed:
            committed = await self._commit(computed)
            done = [
                (item, answer) for item, answer in zip(computed, committed, strict=True) if isinstance(answer, Done)
            ]
            self._serve(done)
        answers = iter(zip(computed, committed, strict=True))
        told = [self._result(*next(answers)) if isinstance(result, _Computed) else result for result in results]
        self._count(told)
        return told

    def _count(self, told: Sequence[Result | Exception]) -> None:
        learned = [each for each in told if isinstance(each, Learned)]
        self._labels["learned"].inc(sum(each.accepted for each in learned))
        self._labels["duplicate"].inc(sum(each.duplicates for each in learned))
        self._labels["unknown"].inc(sum(len(each.unknown) for each in learned if isinstance(each, Labelled)))

    async def _commit(self, computed: Sequence[_Computed]) -> Sequence[Done | Refusal | Exception]:
        try:
            return await self._writer.put(tuple(item.operation for item in computed))
        except ServiceError as error:
            return [error] * len(computed)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of the tick was committed
            return [_failed(error)] * len(computed)

    def _serve(self, done: Sequence[tuple[_Computed, Done]]) -> None:
        """Serve what is committed. Where that fails, the streams are loaded anew: the truth is in the store."""
        try:
            for engine, group in _by_engine(done, lambda pair: pair[0].work):
                slots = [item.work.hot.slot for item, _ in group]
                engine.apply(Tick(slots, [item.tick.states[0] for item, _ in group], []))
                for item, answer in group:
                    item.work.hot.record = answer.record
        except Exception:  # noqa: BLE001 - what was committed was committed
            for item, _ in done:
                self._streams.drop(item.work.hot)
        for item, _ in done:
            if isinstance(item.operation, Append):
                self._streams.learned(item.work.hot, len(item.kept))

    def _result(self, item: _Computed, answer: Done | Refusal | Exception) -> Result | Exception:
        if isinstance(answer, Exception):
            return answer
        if isinstance(answer, Refusal):
            if answer is not Refusal.KNOWN:
                self._streams.drop(item.work.hot)
            return answer
        if isinstance(item.operation, Pend):
            return answer
        return learned(answer, item.outcome, item.kept, item.work.rows, item.unknown)

    def _compute(self, works: Sequence[Work], now: float) -> list[_Computed | Result | Exception]:
        """Runs in the learning thread, or on the event loop; changes nothing."""
        results: dict[int, _Computed | Result | Exception] = {}
        prepared: list[tuple[int, Prepared]] = []
        resets: list[tuple[int, Work]] = []
        unlabelled: list[tuple[int, Work]] = []
        known = self._known_ids(works)
        for index, work in enumerate(works):
            if work.hot.dead:
                results[index] = Refusal.STALE
            elif work.given is None:
                resets.append((index, work))
            elif isinstance(work.given, Unlabelled):
                unlabelled.append((index, work))
            else:
                try:
                    item = prepare(work, work.given, known[index], self._pending(work, now))
                except Exception as error:  # noqa: BLE001 - it belongs to this item
                    results[index] = error
                    continue
                if item.kept:
                    prepared.append((index, item))
                else:
                    results[index] = nothing_new(work.hot.record, work.rows, item.unknown)
        for engine, group in _by_engine(prepared, lambda pair: pair[1].work):
            results |= self._step(engine, group, now)
        for engine, pairs in _by_engine(resets, lambda pair: pair[1]):
            results |= {index: _reset(engine, work, now) for index, work in pairs}
        for engine, pairs in _by_engine(unlabelled, lambda pair: pair[1]):
            results |= _watch(engine, pairs, now)
        return [results[index] for index in range(len(works))]

    def _known_ids(self, works: Sequence[Work]) -> list[set[str]]:
        wanted = [(work.hot.record.key, work.ids) for work in works]
        return self._store.learned(wanted) if any(ids for _, ids in wanted) else [set() for _ in works]

    def _pending(self, work: Work, now: float) -> dict[str, Held]:
        """Predictions that wait for the request's labels."""
        record = work.hot.record
        found = self._store.pending(record, work.ids, now - self._pending_seconds) if work.ids else {}
        return {name: decode_held(row.payload) for name, row in found.items()}

    def _step(
        self, engine: Engine, group: Sequence[tuple[int, Prepared]], now: float
    ) -> "dict[int, _Computed | Exception]":
        """Step together; if that fails, one by one, so that an item's trouble stays its own."""
        items = [
            Feedback(item.work.hot.slot, item.inputs, item.targets, item.asked, None, item.watched, item.rows.targets)
            for _, item in group
        ]
        try:
            tick = engine.step(items)
        except Exception as error:  # noqa: BLE001 - the one at fault is found by asking one by one
            if len(group) == 1:
                return {group[0][0]: _failed(error)}
            return dict(itertools.chain.from_iterable(self._step(engine, [pair], now).items() for pair in group))
        found: dict[int, _Computed | Exception] = {}
        for position, (index, item) in enumerate(group):
            one = Tick([tick.slots[position]], [tick.states[position]], [])
            try:
                found[index] = self._computed(item, one, tick.outcomes[position], now)
            except Exception as error:  # noqa: BLE001 - it belongs to this item
                found[index] = error if isinstance(error, ServiceError) else _failed(error)
        return found

    def _computed(self, item: Prepared, tick: Tick, outcome: Outcome, now: float) -> _Computed:
        record = item.work.hot.record
        rows_seen = record.rows_seen + len(item.kept)
        ids = item.rows.ids or ()
        if item.held is not None:
            outcome = scored(item.work.hot.lease.engine, outcome, item.held, item.targets)
        asked, kept, rows = item.work.asked, item.kept, item.work.rows
        append = Append(
            record,
            "feedback" if item.held is None else "labels",
            max(now, record.updated_at),  # a clock that jumps back must not put entries out of order
            len(item.kept),
            encode_feedback(item.rows, outcome, item.asked, item.watched),
            outcome.state,
            ids=[(name, record.rows_seen + row) for row, name in enumerate(ids) if name is not None],
            ids_from=rows_seen - self._retained_rows,
            events=_events(item.work.hot, outcome, rows_seen, max(now, record.updated_at)),
            upload=item.work.part,
            once=asked and asked.once(lambda done: learned(done, outcome, kept, rows, item.unknown), now),
        )
        return _Computed(item.work, item.kept, item.unknown, append, tick, outcome)


def _watch(engine: Engine, group: Sequence[tuple[int, Work]], now: float) -> dict[int, _Computed | Exception]:
    """Look at rows without labels together; if that fails, one by one."""
    given = [(index, work, work.given) for index, work in group if isinstance(work.given, Unlabelled)]
    try:
        tick, found = engine.watch([(work.hot.slot, engine.encode_inputs(rows.inputs)) for _, work, rows in given])
    except Exception as error:  # noqa: BLE001 - the one at fault is found by asking one by one
        if len(given) == 1:
            return {given[0][0]: _failed(error)}
        return dict(itertools.chain.from_iterable(_watch(engine, [pair], now).items() for pair in group))
    computed: dict[int, _Computed | Exception] = {}
    for (index, work, rows), slot, state, seen in zip(given, tick.slots, tick.states, found, strict=True):
        record = work.hot.record
        events = _moved(record.stream_version, seen.moved, max(now, record.updated_at))
        pend = Pend(record, rows.pending, rows.before, rows.rows_max, seen.snapshot, seen.state, events)
        computed[index] = _Computed(work, [], None, pend, Tick([slot], [state], []), None)
    return computed


def _reset(engine: Engine, work: Work, now: float) -> _Computed:
    record, slot = work.hot.record, work.hot.slot
    tick = engine.reset_tick([slot])
    scratch = engine.create()
    try:
        engine.apply(Tick([scratch], tick.states, []))
        state = engine.status(scratch).state
    finally:
        engine.release(scratch)
    at = max(now, record.updated_at)
    event = StoredEvent(0, record.stream_version + 1, at, "reset", action="readapt", rows_used=0)
    return _Computed(work, [], None, Append(record, "reset", at, 0, RESET, state, events=[event]), tick, None)


def _moved(revision: int, moved: InputShift | None, at: float) -> list[StoredEvent]:
    """The event of inputs that have moved."""
    if moved is None:
        return []
    event = StoredEvent(
        id=0,
        revision=revision,
        at=at,
        kind="warning",
        detector=INPUTS,
        statistic=moved.statistic,
        threshold=moved.threshold,
        feature=moved.feature,
        shift=moved.shift,
    )
    return [event]


def _turned(revision: int, turn: Turn | None, at: float) -> list[StoredEvent]:
    """The event of a stream that is served otherwise from here on."""
    if turn is None:
        return []
    return [StoredEvent(0, revision, at, "revert", None, turn.statistic, turn.threshold, action=turn.to)]


def _events(hot: Hot, outcome: Outcome, rows_seen: int, at: float) -> list[StoredEvent]:
    decision, revision = outcome.decision, hot.record.stream_version + 1
    others = _moved(revision, outcome.moved, at) + _turned(revision, outcome.turned, at)
    if outcome.event is None:
        return others
    since = decision.rows_since_change
    engine = hot.lease.engine
    event = StoredEvent(
        id=0,
        revision=revision,
        at=at,
        kind=outcome.event,
        detector=engine.config.detector or engine.model.spec.detector.name,
        statistic=finite(decision.statistic),
        threshold=finite(decision.threshold),
        change_row=None if since < 0 else max(rows_seen - since, 0),
        action=outcome.action,
        rows_used=outcome.rows_used if outcome.action else None,
    )
    return [event, *others]


def _by_engine(items: Sequence[Any], work: Callable[[Any], Work]) -> Iterable[tuple[Engine, list[Any]]]:
    groups: dict[int, tuple[Engine, list[Any]]] = {}
    for item in items:
        engine = work(item).hot.lease.engine
        groups.setdefault(id(engine), (engine, []))[1].append(item)
    return groups.values()


def _loads(works: Sequence[Work]) -> dict[Engine, Load]:
    """What each engine has to do."""
    return {
        engine: Load(len(group), sum(work.rows for work in group))
        for engine, group in _by_engine(works, lambda work: work)
    }


def _failed(error: Exception) -> ServiceError:
    """What a client hears of a failure inside; its cause is for the log, which leaves out what messages may repeat."""
    failure = ServiceError("Learning failed on our side: nothing of the request was taken; the log has the cause.")
    failure.__cause__ = error
    return failure
