"""Frozen starts: what a version of a model answers and takes before a stream has learned anything."""

from collections.abc import Sequence
from typing import Any

from models import Engine
from service.batcher import Batcher
from service.predicting import Answer, Question
from service.registry import Registry
from service.replay import Engines, Lease
from service.store import Refusal
from service.threads import Threads
from service.types import Predicted, Row


class Starts:
    """Holds an engine for each start that was asked; there are few models.

    Args:
        registry: Which models there are.
        engines: Lends the engines.
        predictor: Where predictions are made.
        threads: Where models are read.
    """

    def __init__(
        self, registry: Registry, engines: Engines, predictor: Batcher[Question, Answer], threads: Threads
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._predictor = predictor
        self._threads = threads
        self._leases: dict[tuple[str, int], Lease] = {}

    async def predict(
        self, model: str, inputs: Sequence[Row], interval: float | None = None, version: int | None = None
    ) -> Predicted:
        """What the start of a model's version, the active one if left out, answers.

        Raises:
            NotFoundError: There is no such model or version.
            InputError: A row that the model cannot take.
            SaturatedError: Too many requests are waiting.
        """
        version = version or self._registry.active(model)
        engine = await self._engine(model, version)
        answer = await self._predictor.put(Question(None, engine, (model, version), inputs, interval))
        if isinstance(answer, Refusal):
            raise TypeError("the frozen start is never out of date")
        return answer.predicted

    async def check(
        self, model: str, inputs: Sequence[Row], targets: Sequence[Any], version: int | None = None
    ) -> None:
        """Refuse what a fresh stream of a model's version, the active one if left out, could not learn.

        Raises:
            NotFoundError: There is no such model or version.
            InputError: A row or a label that the model cannot take.
        """
        engine = await self._engine(model, version or self._registry.active(model))

        def encode() -> None:
            engine.encode_inputs(inputs)
            engine.encode_targets(targets)

        await self._threads.load(encode)

    def forget(self, model: str) -> None:
        """Let go of a model that is gone."""
        for key in [key for key in self._leases if key[0] == model]:
            self._engines.give_back(self._leases.pop(key))

    async def _engine(self, model: str, version: int) -> Engine:
        key = (model, version)
        if key not in self._leases:
            self._leases[key] = await self._threads.load(lambda: self._lease(model, version))
        return self._leases[key].engine

    def _lease(self, model: str, version: int) -> Lease:
        self._registry.info_at(model, version)  # there is such a version
        return self._engines.lease(model, version, {})
