"""The client that does not block: sends what ``requests`` makes, driven by ``calls.attempts``."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from service.client import requests
from service.client.calls import Call, Reply, Seen, Wait, new_key
from service.client.data import lines_of
from service.client.errors import ApiError, NotFoundError
from service.client.following import EventReader
from service.client.replies import (
    Event,
    Learned,
    ModelInfo,
    Prediction,
    Restored,
    Revision,
    StreamInfo,
    Uploaded,
    Webhook,
)
from service.client.shared import (
    RETRIES,
    TIMEOUT_SECONDS,
    Base,
    Progress,
    UploadPlan,
    failed,
    following,
    length_of,
    refused,
    untold,
    upload_parts,
)

T = TypeVar("T")


class AsyncClient(Base):
    """A client that does not block: as ``Client``, with methods to await; lists are asynchronous iterators."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Random | None = None,
    ) -> None:
        super().__init__(url, key, timeout_seconds, retries, draw)
        self._sleep = sleep
        self._http = httpx.AsyncClient(**self._given, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        """Send a call, as often as needed. Raises ApiError, UnreachableError."""
        steps = self._steps(call)
        seen: Seen = None
        try:
            while True:
                step = steps.send(seen)
                seen = await (self._sleep(step.seconds) if isinstance(step, Wait) else self._sent(step))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _sent(self, call: Call[Any]) -> Seen:
        try:
            answer = await self._http.request(
                call.method, call.path, params=call.query, content=call.content, headers=dict(call.headers)
            )
        except httpx.TransportError as error:
            return failed(error)
        return Reply(answer.status_code, answer.headers, answer.content)

    async def pages(self, page: Callable[[str | None], Call[requests.Page]]) -> AsyncIterator[Any]:
        """All items of a list, page by page."""
        cursor: str | None = None
        while True:
            items, cursor = await self.run(page(cursor))
            for item in items:
                yield item
            if cursor is None:
                return

    async def limits(self) -> dict[str, Any]:
        """Every limit in force."""
        return await self.run(requests.limits())

    async def models(self) -> list[ModelInfo]:
        """Every model."""
        return await self.run(requests.models())

    def model(self, name: str) -> "AsyncModel":
        """A model, by its name; nothing is asked yet."""
        return AsyncModel(self, name)

    def streams(self, prefix: str = "", model: str | None = None) -> AsyncIterator[StreamInfo]:
        """Streams by id, page by page."""
        return self.pages(lambda cursor: requests.streams(prefix, model, cursor))

    def stream(self, name: str) -> "AsyncStream":
        """A stream, by its id; nothing is asked yet."""
        return AsyncStream(self, name)

    async def predict(self, items: Sequence[Mapping[str, Any]]) -> list[Prediction | ApiError]:
        """As ``Client.predict``."""
        return await self.run(requests.predict_many(items))

    async def feedback(self, items: Sequence[Mapping[str, Any]], *, key: str | None = None) -> list[Learned | ApiError]:
        """As ``Client.feedback``."""
        return await self.run(requests.feedback_many(items, key))

    async def upload(
        self, rows: Any, *, batch: int = 32, upload: str | None = None, progress: Progress = untold
    ) -> Uploaded:
        """As ``Client.upload``."""
        plan = upload_parts(None, lines_of(rows), upload or new_key(), batch, progress, length_of(rows))
        return await self.uploaded(plan)

    async def uploaded(self, plan: UploadPlan) -> Uploaded:
        """Carry out an upload."""
        result: Any = None
        try:
            while True:
                result = await self.run(plan.send(result))
        except StopIteration as end:
            total: Uploaded = end.value
            return total

    async def webhooks(self) -> list[Webhook]:
        """Every webhook."""
        return await self.run(requests.webhooks())

    async def add_webhook(self, url: str, events: Sequence[str], secret: str | None = None) -> Webhook:
        """As ``Client.add_webhook``."""
        return await self.run(requests.add_webhook(url, events, secret))

    async def delete_webhook(self, name: str) -> None:
        """Tell it nothing more."""
        await self.run(requests.delete_webhook(name))

    async def followed(self, stream: str, after: str | None) -> AsyncIterator[Event]:
        """As ``Client.followed``."""
        reader = EventReader(after)
        while True:
            try:
                async with self._http.stream("GET", f"/v1/streams/{stream}/events", **following(reader)) as answer:
                    if answer.status_code != httpx.codes.OK:
                        await answer.aread()
                        raise refused(answer)
                    async for data in answer.aiter_bytes():
                        for event in reader.feed(data):
                            yield event
            except httpx.TransportError:
                pass
            await self._sleep(1.0)


class AsyncModel:
    """As ``Model``, to await."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    async def info(self) -> ModelInfo:
        """As ``Model.info``."""
        return await self._client.run(requests.model(self.name))

    async def predict(self, X: Any, *, interval: float | None = None) -> Prediction:
        """As ``Model.predict``."""
        return await self._client.run(requests.predict(("models", self.name), X, None, interval))

    async def upload(self, bundle: bytes) -> int:
        """As ``Model.upload``."""
        return await self._client.run(requests.add_version(self.name, bundle))

    async def activate(self, version: int) -> ModelInfo:
        """As ``Model.activate``."""
        return await self._client.run(requests.activate(self.name, version))

    async def delete(self) -> None:
        """As ``Model.delete``."""
        await self._client.run(requests.delete_model(self.name))


class AsyncStream:
    """As ``Stream``, to await."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    async def create(
        self, model: str, *, config: Mapping[str, Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> StreamInfo:
        """As ``Stream.create``."""
        return await self._client.run(requests.create(self.name, model, config, metadata))

    async def predict(self, X: Any, *, ids: Any = None, interval: float | None = None) -> Prediction:
        """As ``Stream.predict``."""
        return await self._client.run(requests.predict(("streams", self.name), X, ids, interval))

    async def feedback(
        self,
        X: Any,
        y: Any,
        *,
        ids: Any = None,
        times: Any = None,
        return_predictions: bool = False,
        key: str | None = None,
    ) -> Learned:
        """As ``Stream.feedback``."""
        call = requests.feedback(self.name, X, y, ids, times, with_predictions=return_predictions, key=key)
        return await self._client.run(call)

    async def labels(self, labels: Mapping[str, Any]) -> Learned:
        """As ``Stream.labels``."""
        return await self._client.run(requests.labels(self.name, labels))

    async def upload(
        self,
        rows: Any,
        targets: Any = None,
        *,
        target: str | None = None,
        batch: int = 32,
        upload: str | None = None,
        progress: Progress = untold,
    ) -> Uploaded:
        """As ``Stream.upload``."""
        lines = lines_of(rows, targets, target=target)
        plan = upload_parts(self.name, lines, upload or new_key(), batch, progress, length_of(rows))
        return await self._client.uploaded(plan)

    async def upload_offset(self, upload: str) -> int:
        """As ``Stream.upload_offset``."""
        try:
            return await self._client.run(requests.offset(self.name, upload))
        except NotFoundError:
            return 0

    def events(self, after: str | None = None, *, follow: bool = False) -> AsyncIterator[Event]:
        """As ``Stream.events``."""
        if follow:
            return self._client.followed(self.name, after)
        return self._client.pages(lambda cursor: requests.events(self.name, cursor or after))

    def revisions(self) -> AsyncIterator[Revision]:
        """As ``Stream.revisions``."""
        return self._client.pages(lambda cursor: requests.revisions(self.name, cursor))

    async def rollback(self, revision: int | None = None, *, before: Any = None) -> Restored:
        """As ``Stream.rollback``."""
        return await self._client.run(requests.rollback(self.name, revision, before))

    async def state(self) -> StreamInfo:
        """As ``Stream.state``."""
        return await self._client.run(requests.state(self.name))

    async def reset(self) -> StreamInfo:
        """As ``Stream.reset``."""
        return await self._client.run(requests.reset(self.name))

    async def snapshot(self) -> bytes:
        """As ``Stream.snapshot``."""
        return await self._client.run(requests.snapshot(self.name))

    async def restore(self, file: bytes) -> StreamInfo:
        """As ``Stream.restore``."""
        return await self._client.run(requests.restore(self.name, file))

    async def delete(self) -> None:
        """As ``Stream.delete``."""
        await self._client.run(requests.delete(self.name))
