"""What the Open Inference Protocol's requests ask of models and streams."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import ConflictError, InvalidError
from service.fleet import Door
from service.many import predict_or_start
from service.oip import Asked, Reply, learned_reply, predicted_reply, requested, rows_of, targets_of
from service.streams import Streams
from service.types import Predicted, Row

T = TypeVar("T")
INLINE_BYTES = 65_536
"""More than this is taken apart in a thread, so that the event loop goes on."""


async def infer(streams: Streams, door: Door, asked: Asked, model: str, version: int | None, rows_max: int) -> Reply:
    """Predict by the stream of a request; without one, or where it is not there yet, by the model's frozen start.

    Where the stream is to be reset first, it is asked before that, too: what is refused changes nothing.

    Args:
        streams: This worker's; every worker has all models.
        door: All streams.
        asked: The request.
        model: Name of the model.
        version: The version that has to answer; ``None``: the stream's, or the active one.
        rows_max: Most rows.

    Raises:
        NotFoundError: There is no such model or version.
        ConflictError: The stream is bound to another model, or to another version than the one asked for.
        InputError, InvalidError: Tensors that the model cannot take.
    """
    info = await streams.model_at(model, version)
    requested(asked, info)
    rows = await off_loop(_bytes_of(asked), lambda: rows_of(asked, info, rows_max))
    answer = await _predict(door, asked, model, version, rows)
    if asked.start and answer.stream is not None:
        await door.reset(answer.stream)
        answer = await _predict(door, asked, model, version, rows)
    return predicted_reply(answer, await streams.model_at(model, answer.model_version))


async def learn(streams: Streams, door: Door, asked: Asked, model: str, rows_max: int) -> Reply:
    """Teach the stream of a request, which is created where there is none.

    Where it is to be reset first, rows and labels are checked before that: what is refused changes nothing.

    Args:
        streams: This worker's; every worker has all models.
        door: All streams.
        asked: The request, with a tensor of labels.
        model: Name of the model.
        rows_max: Most rows.

    Raises:
        NotFoundError: There is no such model.
        ConflictError: The stream is bound to another model.
        InputError, InvalidError: No stream, or tensors that the model cannot take.
    """
    info = await streams.model_at(model)
    requested(asked, info)
    if asked.stream is None:
        raise InvalidError.at(("parameters", "sequence_id"), "missing; say which stream learns")

    def decode() -> tuple[list[Row], list[Any]]:
        rows = rows_of(asked, info, rows_max, labelled=True)
        return rows, targets_of(asked, len(rows))

    rows, targets = await off_loop(_bytes_of(asked), decode)
    if asked.start:
        answer = await _predict(door, asked, model, None, rows)
        await streams.starts.check(model, rows, targets, answer.model_version)
        if answer.stream is not None:
            await door.reset(answer.stream)
    learned = await door.feedback(asked.stream, rows, targets, model=model)
    return learned_reply(learned, await streams.model_at(model, learned.model_version))


async def off_loop(size_bytes: int, work: Callable[[], T]) -> T:
    """Do it here where there is little of it, in a thread otherwise."""
    return work() if size_bytes <= INLINE_BYTES else await asyncio.to_thread(work)


async def _predict(door: Door, asked: Asked, model: str, version: int | None, rows: list[Row]) -> Predicted:
    if asked.stream is None:
        return await door.predict_initial(model, rows, None, version)
    answer = await predict_or_start(door, asked.stream, model, rows, version=version)
    if version not in {None, answer.model_version}:
        raise ConflictError(
            f"Stream {asked.stream} is bound to version {answer.model_version} of the model: ask that one, or none."
        )
    return answer


def _bytes_of(asked: Asked) -> int:
    """About how much there is to decode."""
    return sum(len(tensor.content) for tensor in asked.inputs)
