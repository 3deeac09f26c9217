"""One tick of predictions: the requests of an engine share one batched call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models import Engine, FloatArray, Prediction
from service.hot import Hot
from service.store import Refusal
from service.threads import Threads
from service.types import Predicted, Row


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


class Predictor:
    """Works on ticks of questions, in the serving thread; never waits for a commit."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def work(self, questions: list[Question]) -> list[Answer | Exception]:
        """Answer a tick; ``Refusal.STALE`` where the stream has to be loaded anew."""
        return await self._threads.serve(lambda: _answer(questions))


def _answer(questions: Sequence[Question]) -> list[Answer | Exception]:
    answers: dict[int, Answer | Exception] = {}
    groups: dict[tuple[int, float | None], list[tuple[int, FloatArray]]] = {}
    for index, question in enumerate(questions):
        if question.hot is not None and question.hot.dead:
            answers[index] = Refusal.STALE
            continue
        try:
            inputs = question.engine.encode_inputs(question.inputs)
            if question.hot is None:
                answers[index] = _frozen(question, inputs)
            else:
                groups.setdefault((id(question.engine), question.interval), []).append((index, inputs))
        except Exception as error:  # noqa: BLE001 - it belongs to this question
            answers[index] = error
    for group in groups.values():
        answers |= _group(questions, group)
    return [answers[index] for index in range(len(questions))]


def _frozen(question: Question, inputs: FloatArray) -> Answered:
    name, version = question.model
    return _answered(None, name, version, 0, question.engine.predict_initial(inputs, question.interval))


def _group(questions: Sequence[Question], group: Sequence[tuple[int, FloatArray]]) -> dict[int, Answer | Exception]:
    """Questions of one engine and interval; those of one stream are joined, since a call takes a stream once."""
    by_slot: dict[int, list[tuple[int, FloatArray]]] = {}
    for index, inputs in group:
        hot = questions[index].hot
        if hot is not None:
            by_slot.setdefault(hot.slot, []).append((index, inputs))
    first = questions[group[0][0]]
    joined = [(slot, np.concatenate([rows for _, rows in parts])) for slot, parts in by_slot.items()]
    try:
        predictions = first.engine.predict(joined, first.interval)
    except Exception as error:  # noqa: BLE001 - it belongs to those who asked
        return dict.fromkeys((index for index, _ in group), error)
    answers: dict[int, Answer | Exception] = {}
    for parts, prediction in zip(by_slot.values(), predictions, strict=True):
        start = 0
        for index, rows in parts:
            stop = start + len(rows)
            hot = questions[index].hot
            if hot is not None:
                record = hot.record
                stated = (record.stream, record.model, record.model_version, record.stream_version)
                answers[index] = _answered(*stated, _slice(prediction, start, stop))
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


def _answered(
    stream: str | None, model: str, model_version: int, stream_version: int, prediction: Prediction
) -> Answered:
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
