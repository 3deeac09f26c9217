"""Predict for late labels: what is answered is committed first, so that a label may come after any crash."""

from collections.abc import Callable, Sequence
from functools import partial

from service.batcher import Batcher
from service.config import Settings
from service.errors import ConflictError, InvalidError, UnavailableError
from service.hot import DAY_SECONDS, Hot, HotStreams
from service.learning import Result
from service.pending import Held, answer_of, decode_held, encode_held, hold, same_input
from service.predicting import Answer, Question
from service.preparing import Unlabelled, Work
from service.store import Done, Pending, Refusal, Store, StreamRecord
from service.threads import Threads
from service.types import Predicted, Row

ATTEMPTS = 5
"""How often a request is tried whose ids become known meanwhile."""


class LatePredictor:
    """Predicts rows and keeps them under their ids.

    Args:
        settings: ``pending_days`` and ``pending_rows_max``.
        store: Asked for ids that are known already.
        streams: Where streams come from.
        predictor: Computes.
        learner: Keeps the rows, and watches their inputs.
        threads: Where the store is read.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        streams: HotStreams,
        predictor: Batcher[Question, Answer],
        learner: Batcher[Work, Result],
        *,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._rows_max = settings.pending_rows_max
        self._seconds = settings.pending_days * DAY_SECONDS
        self._store = store
        self._streams = streams
        self._predictor = predictor
        self._learner = learner
        self._threads = threads
        self._clock = clock

    async def predict(
        self, stream: str, inputs: Sequence[Row], ids: Sequence[str], interval: float | None
    ) -> Predicted:
        """Answer after the commit. Rows that wait already are answered as they were, if they are the same.

        Raises:
            NotFoundError: There is no such stream.
            InputError, InvalidError: A row that the model cannot take, or ids that are not one a row.
            ConflictError: An id was learned already, or waits with another row.
            SaturatedError, StoreFullError, UnavailableError: Nothing was kept.
        """
        self._check(inputs, ids)
        known: dict[str, Held] = {}
        for _ in range(ATTEMPTS):
            hot = await self._streams.acquire(stream)
            record, classes = hot.record, list(hot.lease.engine.model.spec.target.classes) or None
            fresh = [(name, row) for name, row in zip(ids, inputs, strict=True) if name not in known]
            kept = await self._keep(hot, fresh, interval)
            if kept is not None:
                return answer_of(stream, record.model, classes, [(known | kept)[name] for name in ids])
            known = await self._threads.load(partial(self._known, record, inputs, ids, interval))
        raise UnavailableError(f"Stream {stream} is being changed by others: repeat the request.")

    def _check(self, inputs: Sequence[Row], ids: Sequence[str]) -> None:
        if len(ids) != len(inputs):
            raise InvalidError.at(("ids",), f"{len(ids)} entries for {len(inputs)} rows of inputs; send one a row")
        if len(ids) > self._rows_max:
            raise InvalidError.at(("ids",), f"a stream keeps at most {self._rows_max} rows that wait for labels")
        seen: set[str] = set()
        for index, name in enumerate(ids):
            if name in seen:
                raise InvalidError.at(("ids", index), f"id {name} stands twice; name each row of its own")
            seen.add(name)

    async def _keep(self, hot: Hot, rows: Sequence[tuple[str, Row]], interval: float | None) -> dict[str, Held] | None:
        """Predict and commit rows of a pinned stream; ``None`` where an id is known or the stream was changed."""
        if not rows:
            self._streams.release(hot)
            return {}
        record, inputs = hot.record, [row for _, row in rows]
        question = Question(hot, hot.lease.engine, (record.model, record.model_version), inputs, interval)
        answer = await self._streams.queue(hot, self._predictor, question)
        if isinstance(answer, Refusal):
            return None
        held = dict(zip((name for name, _ in rows), hold(answer, inputs, interval), strict=True))
        now = self._clock()
        pending = [Pending(name, now, encode_held(row)) for name, row in held.items()]
        given = Unlabelled(inputs, pending, now - self._seconds, self._rows_max)
        again = await self._streams.acquire(record.stream)
        done = await self._streams.queue(again, self._learner, Work(again, given))
        return held if isinstance(done, Done) else None

    def _known(
        self, record: StreamRecord, inputs: Sequence[Row], ids: Sequence[str], interval: float | None
    ) -> dict[str, Held]:
        """Rows that wait already, all of them the same as those of the request."""
        pending = self._store.pending(record, ids, self._clock() - self._seconds)
        learned = self._store.learned([(record.key, ids)])[0]
        found = {name: decode_held(row.payload) for name, row in pending.items()}
        for name, row in zip(ids, inputs, strict=True):
            if name in learned:
                raise ConflictError(f"Id {name} was learned already: predict a new row under an id of its own.")
            held = found.get(name)
            if held is not None and not (same_input(held, row) and held.interval == interval):
                raise ConflictError(
                    f"Id {name} waits for the label of other inputs, or was predicted with another interval: "
                    "send the same again, or an id of its own."
                )
        return found
