"""One tick of predictions: the requests of an engine share one batched call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple, cast

import numpy as np

from models import Engine, FloatArray, Prediction
from service.hot import Hot
from service.metrics import Metrics
from service.statistics import Statistics
from service.store import Refusal
from service.threads import Threads
from service.types import Predicted, Row, StreamState

INLINE_ROWS = 4_096
"""A tick of more rows is worked on in a thread, so that the event loop goes on."""


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """Rows to predict, by a hot stream or by the frozen start of an engine."""

    hot: Hot | None
    engine: Engine
    model: tuple[str, int]
    inputs: Sequence[Row]
    interval: float | None
    asked_ns: int = field(default_factory=perf_counter_ns)


class Answered(NamedTuple):
    """What is answered, and what its labels need if they come late: ``asked`` and ``unnamed`` of the ``Prediction``."""

    predicted: Predicted
    asked: FloatArray
    unnamed: list[float] | None


Answer = Answered | Refusal


class _Stated(NamedTuple):
    """Whose an answer is: a stream's (``None``: the start's), with the state that it was made from."""

    stream: str | None
    model: str
    model_version: int
    stream_version: int
    state: StreamState | None


class _Asked(NamedTuple):
    """An encoded question."""

    place: int
    question: Question
    inputs: FloatArray
    stated: _Stated


class Predictor:
    """Works on ticks of questions; never waits for a commit.

    A stream's state and the revision that is stated with an answer are both taken on the event loop, where alone they
    change. A tick of few rows is worked on there, too: to hand it to a thread and back takes longer.
    """

    def __init__(self, threads: Threads, statistics: Statistics, metrics: Metrics) -> None:
        self._threads = threads
        self._statistics = statistics
        self._rows = {True: metrics.predictions.labels("initial"), False: metrics.predictions.labels("adapted")}

    async def work(self, questions: list[Question]) -> list[Answer | Exception]:
        """Answer a tick; ``Refusal.STALE`` where the stream has to be loaded anew."""
        began_ns = perf_counter_ns()
        few = sum(len(question.inputs) for question in questions) <= INLINE_ROWS
        encoded = _encoded(questions) if few else await self._threads.predict(lambda: _encoded(questions))
        encoded_ns = perf_counter_ns()
        answers: dict[int, Answer | Exception] = {}
        groups: dict[tuple[int, float | None, bool], list[_Asked]] = {}
        for index, (question, inputs) in enumerate(zip(questions, encoded, strict=True)):
            hot = question.hot
            if isinstance(inputs, Exception):
                answers[index] = inputs
                self._statistics.failed(question.model, encoded_ns - question.asked_ns)
            elif hot is not None and hot.dead:
                answers[index] = Refusal.STALE
            else:
                stated = _Stated(None, *question.model, 0, None) if hot is None else _stated(hot)
                key = (id(question.engine), question.interval, hot is None)
                groups.setdefault(key, []).append(_Asked(index, question, inputs, stated))
        for work in [_Group(group) for group in groups.values()]:
            answers |= work.answers() if few else await self._threads.predict(work.answers)
            self._rows[work.initial].inc(work.rows)
            self._count(work, began_ns, encoded_ns)
        return [answers[index] for index in range(len(questions))]

    def _count(self, work: "_Group", began_ns: int, encoded_ns: int) -> None:
        now_ns = perf_counter_ns()
        questions, model = work.questions, work.questions[0].model
        if work.failed:
            for question in questions:
                self._statistics.failed(model, now_ns - question.asked_ns)
            return
        self._statistics.answered(
            model,
            rows=sum(len(question.inputs) for question in questions),
            waited_ns=(began_ns - question.asked_ns for question in questions),
            took_ns=(now_ns - question.asked_ns for question in questions),
            stages_ns=(encoded_ns - began_ns, work.infer_ns, work.output_ns),
        )


def _encoded(questions: Sequence[Question]) -> list[FloatArray | Exception]:
    found: list[FloatArray | Exception] = []
    for question in questions:
        try:
            found.append(question.engine.encode_inputs(question.inputs))
        except Exception as error:  # noqa: BLE001 - it belongs to this question
            found.append(error)
    return found


def _stated(hot: Hot) -> _Stated:
    record = hot.record
    state = cast("StreamState", record.state)
    return _Stated(record.stream, record.model, record.model_version, record.stream_version, state)


class _Group:
    """Questions of one engine and interval; those of one stream are joined, since a call takes a stream once.

    Attributes:
        questions: All of them.
        failed: Whether there was no answer.
        infer_ns: How long computing took.
        output_ns: How long stating the answers took.
    """

    def __init__(self, group: Sequence[_Asked]) -> None:
        self.questions = [asked.question for asked in group]
        self.failed = False
        self.infer_ns = self.output_ns = 0
        self._first = group[0].question
        self.initial = self._first.hot is None
        self.rows = sum(len(asked.inputs) for asked in group)
        self._parts: dict[int, list[_Asked]] = {}
        for asked in group:
            hot = asked.question.hot
            self._parts.setdefault(-1 if hot is None else hot.slot, []).append(asked)
        self._look = None if self._first.hot is None else self._first.engine.look(list(self._parts))

    def answers(self) -> dict[int, Answer | Exception]:
        """By the questions' indices; the states are those at the time of making."""
        began_ns = perf_counter_ns()
        engine, interval = self._first.engine, self._first.interval
        blocks = [
            parts[0].inputs if len(parts) == 1 else np.concatenate([part.inputs for part in parts])
            for parts in self._parts.values()
        ]
        try:
            if self._look is None:
                predictions = [engine.predict_initial(blocks[0], interval)]
            else:
                predictions = engine.answer(self._look, blocks, interval)
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            self.failed = True
            return {part.place: error for parts in self._parts.values() for part in parts}
        computed_ns = perf_counter_ns()
        answers: dict[int, Answer | Exception] = {}
        for parts, prediction in zip(self._parts.values(), predictions, strict=True):
            start = 0
            for part in parts:
                stop = start + len(part.inputs)
                own = prediction if len(parts) == 1 else _slice(prediction, start, stop)
                answers[part.place] = _answered(part.stated, own)
                start = stop
        self.infer_ns, self.output_ns = computed_ns - began_ns, perf_counter_ns() - computed_ns
        return answers


def _slice(prediction: Prediction, start: int, stop: int) -> Prediction:
    def part(values: list[Any] | None) -> list[Any] | None:
        return None if values is None else values[start:stop]

    return prediction._replace(
        predictions=prediction.predictions[start:stop],
        probabilities=part(prediction.probabilities),
        std=part(prediction.std),
        intervals=part(prediction.intervals),
        asked=prediction.asked[start:stop],
        unnamed=part(prediction.unnamed),
    )


def _answered(stated: _Stated, prediction: Prediction) -> Answered:
    predicted = Predicted(
        stream=stated.stream,
        model=stated.model,
        model_version=stated.model_version,
        stream_version=stated.stream_version,
        predictions=prediction.predictions,
        probabilities=prediction.probabilities,
        classes=prediction.classes,
        std=prediction.std,
        intervals=prediction.intervals,
        state=stated.state,
        adapted=stated.stream is not None and prediction.adapted,
    )
    return Answered(predicted, prediction.asked, prediction.unnamed)
