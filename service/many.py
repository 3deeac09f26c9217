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
from service.types import Learned, Predicted

Answer = TypeVar("Answer")
STREAMS_AT_ONCE = 512
"""Streams of one request that are asked at once: it may not fill the queue that all requests share."""


async def predict_many(streams: Door, items: Sequence[ManyItem]) -> list[Predicted | ServiceError | InputError]:
    """Predict by many streams; where there is none and its model is stated, that model's frozen start answers."""

    async def one(item: ManyItem, asked: Predict | Feedback) -> Predicted:
        if not isinstance(asked, Predict):
            raise TypeError("not a prediction")
        try:
            answer = await streams.predict(item.stream, asked.inputs, asked.interval, asked.ids)
        except NotFoundError:
            if item.model is None or asked.ids is not None:
                raise
            initial = await streams.predict_initial(item.model, asked.inputs, asked.interval)
            return replace(initial, stream=item.stream)
        if item.model not in {None, answer.model}:
            raise ConflictError(f"Stream {item.stream} is bound to model {answer.model}: leave the model out.")
        return answer

    return await _each(items, one)


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
