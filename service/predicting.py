"""One tick of predictions: the requests of an engine share one batched call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models import Engine, FloatArray, Prediction
from service.hot import Hot
from service.metrics import Metrics
from service.store import Refusal
from service.threads import Threads
from service.types import Predicted, Row

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


class Answered(NamedTuple):
    """What is answered, and what its labels need if they come late: ``asked`` and ``unnamed`` of the ``Prediction``."""

    predicted: Predicted
    asked: FloatArray
    unnamed: list[float] | None


Answer = Answered | Refusal


class _Asked(NamedTuple):
    """An encoded question; whose answer is stated as that of a stream (``None``: the start), a model, two versions."""

    place: int
    question: Question
    inputs: FloatArray
    stated: tuple[str | None, str, int, int]


class Predictor:
    """Works on ticks of questions; never waits for a commit.

    A stream's state and the revision that is stated with an answer are both taken on the event loop, where alone they
    change. A tick of few rows is worked on there, too: to hand it to a thread and back takes longer.
    """

    def __init__(self, threads: Threads, metrics: Metrics) -> None:
        self._threads = threads
        self._rows = {True: metrics.predictions.labels("initial"), False: metrics.predictions.labels("adapted")}

    async def work(self, questions: list[Question]) -> list[Answer | Exception]:
        """Answer a tick; ``Refusal.STALE`` where the stream has to be loaded anew."""
        few = sum(len(question.inputs) for question in questions) <= INLINE_ROWS
        encoded = _encoded(questions) if few else await self._threads.predict(lambda: _encoded(questions))
        answers: dict[int, Answer | Exception] = {}
        groups: dict[tuple[int, float | None, bool], list[_Asked]] = {}
        for index, (question, inputs) in enumerate(zip(questions, encoded, strict=True)):
            hot = question.hot
            if isinstance(inputs, Exception):
                answers[index] = inputs
            elif hot is not None and hot.dead:
                answers[index] = Refusal.STALE
            else:
                stated = (None, *question.model, 0) if hot is None else _stated(hot)
                key = (id(question.engine), question.interval, hot is None)
                groups.setdefault(key, []).append(_Asked(index, question, inputs, stated))
        for work in [_Group(group) for group in groups.values()]:
            answers |= work.answers() if few else await self._threads.predict(work.answers)
            self._rows[work.initial].inc(work.rows)
        return [answers[index] for index in range(len(questions))]


def _encoded(questions: Sequence[Question]) -> list[FloatArray | Exception]:
    found: list[FloatArray | Exception] = []
    for question in questions:
        try:
            found.append(question.engine.encode_inputs(question.inputs))
        except Exception as error:  # noqa: BLE001 - it belongs to this question
            found.append(error)
    return found


def _stated(hot: Hot) -> tuple[str, str, int, int]:
    record = hot.record
    return record.stream, record.model, record.model_version, record.stream_version


class _Group:
    """Questions of one engine and interval; those of one stream are joined, since a call takes a stream once."""

    def __init__(self, group: Sequence[_Asked]) -> None:
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
            return {part.place: error for parts in self._parts.values() for part in parts}
        answers: dict[int, Answer | Exception] = {}
        for parts, prediction in zip(self._parts.values(), predictions, strict=True):
            start = 0
            for part in parts:
                stop = start + len(part.inputs)
                own = prediction if len(parts) == 1 else _slice(prediction, start, stop)
                answers[part.place] = _answered(part.stated, own)
                start = stop
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


def _answered(stated: tuple[str | None, str, int, int], prediction: Prediction) -> Answered:
    stream, model, model_version, stream_version = stated
    predicted = Predicted(
        stream=stream,
        model=model,
        model_version=model_version,
        stream_version=stream_version,
        predictions=prediction.predictions,
        probabilities=prediction.probabilities,
        classes=prediction.classes,
        std=prediction.std,
        intervals=prediction.intervals,
    )
    return Answered(predicted, prediction.asked, prediction.unnamed)
