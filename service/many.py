"""Requests to many streams at once: each stream is asked by itself, and its trouble stays its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from models import InputError
from service.errors import ConflictError, NotFoundError, ServiceError
from service.fleet import Door
from service.idempotency import Asked
from service.schemas import Feedback, ManyItem, Predict
from service.types import Learned, Predicted, Row

Answer = TypeVar("Answer")
STREAMS_AT_ONCE = 512
"""Streams of one request that are asked at once: it may not fill the queue that all requests share."""


async def predict_many(streams: Door, items: Sequence[ManyItem]) -> list[Predicted | ServiceError | InputError]:
    """Predict by many streams; where there is none and its model is stated, that model's frozen start answers."""

    async def one(item: ManyItem, asked: Predict | Feedback) -> Predicted:
        if not isinstance(asked, Predict):
            raise TypeError("not a prediction")
        if item.model is None or asked.ids is not None:
            answer = await streams.predict(item.stream, asked.inputs, asked.interval, asked.ids)
            return answer if item.model is None else bound(answer, item.stream, item.model)
        answer = await predict_or_start(streams, item.stream, item.model, asked.inputs, asked.interval)
        return answer if answer.stream else replace(answer, stream=item.stream)

    return await _each(items, one)


async def predict_or_start(
    streams: Door,
    stream: str,
    model: str,
    inputs: Sequence[Row],
    interval: float | None = None,
    version: int | None = None,
) -> Predicted:
    """Predict by a stream of a model; where there is no such stream, the model's frozen start answers.

    Raises:
        ConflictError: The stream is bound to another model.
    """
    try:
        answer = await streams.predict(stream, inputs, interval)
    except NotFoundError:
        return await streams.predict_initial(model, inputs, interval, version)
    return bound(answer, stream, model)


def bound(answer: Predicted, stream: str, model: str) -> Predicted:
    """A stream's answer, if it is bound to the model that the request states. Raises ConflictError."""
    if answer.model != model:
        raise ConflictError(f"Stream {stream} is bound to model {answer.model}: state that one.")
    return answer


async def feedback_many(streams: Door, items: Sequence[ManyItem]) -> list[Learned | ServiceError | InputError]:
    """Teach many streams; one that is not there is created where its model is stated."""

    async def one(item: ManyItem, asked: Predict | Feedback) -> Learned:
        if not isinstance(asked, Feedback):
            raise TypeError("not feedback")
        return await streams.feedback(
            item.stream, asked.inputs, asked.targets, asked.ids, asked.times, model=item.model
        )

    return await _each(items, one)


async def feedback_many_once(
    streams: Door, items: Sequence[ManyItem], asked: Asked
) -> list[tuple[bytes, bool] | ServiceError | InputError]:
    """As ``feedback_many`` under a key; the answers' JSON, each with whether it was given before."""
    places = {id(item): place for place, item in enumerate(items)}

    async def one(item: ManyItem, given: Predict | Feedback) -> tuple[bytes, bool]:
        if not isinstance(given, Feedback):
            raise TypeError("not feedback")
        own = asked._replace(key=f"{asked.key} {places[id(item)]}")  # a stream may be named twice
        return await streams.feedback_once(own, item.stream, *given, model=item.model)

    return await _each(items, one)


async def _each(
    items: Sequence[ManyItem], one: Callable[[ManyItem, Predict | Feedback], Awaitable[Answer]]
) -> list[Answer | ServiceError | InputError]:
    """All items, those of one stream one after another, of different streams side by side."""
    answers: list[Answer | ServiceError | InputError] = [ServiceError("not asked")] * len(items)
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.stream, []).append(place)

    turn = asyncio.Semaphore(STREAMS_AT_ONCE)

    async def of_stream(own: Sequence[int]) -> None:
        async with turn:
            for place in own:
                asked = items[place].asked
                try:
                    answers[place] = asked if isinstance(asked, ServiceError) else await one(items[place], asked)
                except (ServiceError, InputError) as error:
                    answers[place] = error

    await asyncio.gather(*(of_stream(own) for own in places.values()))
    return answers
