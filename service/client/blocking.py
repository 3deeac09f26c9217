"""The client that blocks: sends what ``requests`` makes, driven by ``calls.attempts``."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client(Base):
    """A client that blocks.

    Args:
        url: Of the service.
        key: An API key, where the service asks for one.
        timeout_seconds: How long one request may take.
        retries: How often a request is tried again.
        transport: What carries requests, if not the network.
        sleep: Waits, if not by blocking.
        draw: Randomness of the waits.

    Example:
        >>> from service.client import Client
        >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     client.stream("lab-1").feedback([[0.5]], [1.44])
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        draw: Random | None = None,
    ) -> None:
        super().__init__(url, key, timeout_seconds, retries, draw)
        self._sleep = sleep
        self._http = httpx.Client(**self._given, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Send a call, as often as needed. Raises ApiError, UnreachableError."""
        steps = self._steps(call)
        seen: Seen = None
        try:
            while True:
                step = steps.send(seen)
                seen = self._sleep(step.seconds) if isinstance(step, Wait) else self._sent(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def _sent(self, call: Call[Any]) -> Seen:
        try:
            answer = self._http.request(
                call.method, call.path, params=call.query, content=call.content, headers=dict(call.headers)
            )
        except httpx.TransportError as error:
            return failed(error)
        return Reply(answer.status_code, answer.headers, answer.content)

    def pages(self, page: Callable[[str | None], Call[requests.Page]]) -> Iterator[Any]:
        """All items of a list, page by page."""
        cursor: str | None = None
        while True:
            items, cursor = self.run(page(cursor))
            yield from items
            if cursor is None:
                return

    def limits(self) -> dict[str, Any]:
        """Every limit in force."""
        return self.run(requests.limits())

    def models(self) -> list[ModelInfo]:
        """Every model."""
        return self.run(requests.models())

    def model(self, name: str) -> "Model":
        """A model, by its name; nothing is asked yet."""
        return Model(self, name)

    def streams(self, prefix: str = "", model: str | None = None) -> Iterator[StreamInfo]:
        """Streams by id, page by page."""
        return self.pages(lambda cursor: requests.streams(prefix, model, cursor))

    def stream(self, name: str) -> "Stream":
        """A stream, by its id; nothing is asked yet."""
        return Stream(self, name)

    def predict(self, items: Sequence[Mapping[str, Any]]) -> list[Prediction | ApiError]:
        """Predict by many streams: ``{"stream", "inputs", "model"?, "ids"?}`` each; an item's error is in its place."""
        return self.run(requests.predict_many(items))

    def feedback(self, items: Sequence[Mapping[str, Any]], *, key: str | None = None) -> list[Learned | ApiError]:
        """Teach many streams: ``{"stream", "inputs", "targets", "model"?, "ids"?}`` each, once under ``key``."""
        return self.run(requests.feedback_many(items, key))

    def upload(
        self,
        rows: Any,
        *,
        batch: int = 32,
        upload: str | None = None,
        progress: Progress = untold,
    ) -> Uploaded:
        """Teach many streams rows ``{"stream", "input", "target", "id"?}`` without an end; as ``Stream.upload``."""
        plan = upload_parts(None, lines_of(rows), upload or new_key(), batch, progress, length_of(rows))
        return self.uploaded(plan)

    def uploaded(self, plan: UploadPlan) -> Uploaded:
        """Carry out an upload."""
        result: Any = None
        try:
            while True:
                result = self.run(plan.send(result))
        except StopIteration as end:
            total: Uploaded = end.value
            return total

    def webhooks(self) -> list[Webhook]:
        """Every webhook."""
        return self.run(requests.webhooks())

    def add_webhook(self, url: str, events: Sequence[str], secret: str | None = None) -> Webhook:
        """Tell a URL of events; the answer alone has the secret."""
        return self.run(requests.add_webhook(url, events, secret))

    def delete_webhook(self, name: str) -> None:
        """Tell it nothing more."""
        self.run(requests.delete_webhook(name))

    def followed(self, stream: str, after: str | None) -> Iterator[Event]:
        """Events as they are committed; goes on after every cut, as long as it is asked."""
        reader = EventReader(after)
        while True:
            try:
                with self._http.stream("GET", f"/v1/streams/{stream}/events", **following(reader)) as answer:
                    if answer.status_code != httpx.codes.OK:
                        answer.read()
                        raise refused(answer)
                    for data in answer.iter_bytes():
                        yield from reader.feed(data)
            except httpx.TransportError:
                pass
            self._sleep(1.0)


class Model:
    """A model of a client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def info(self) -> ModelInfo:
        """What it takes and answers, and its versions."""
        return self._client.run(requests.model(self.name))

    def predict(self, X: Any, *, interval: float | None = None) -> Prediction:
        """What its frozen start answers."""
        return self._client.run(requests.predict(("models", self.name), X, None, interval))

    def upload(self, bundle: bytes) -> int:
        """Add a version; its number."""
        return self._client.run(requests.add_version(self.name, bundle))

    def activate(self, version: int) -> ModelInfo:
        """Make a version the active one."""
        return self._client.run(requests.activate(self.name, version))

    def delete(self) -> None:
        """Delete it with all its versions."""
        self._client.run(requests.delete_model(self.name))


class Stream:
    """A stream of a client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def create(
        self, model: str, *, config: Mapping[str, Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> StreamInfo:
        """Create it, or confirm it with another config or metadata."""
        return self._client.run(requests.create(self.name, model, config, metadata))

    def predict(self, X: Any, *, ids: Any = None, interval: float | None = None) -> Prediction:
        """Predict rows: lists, NumPy, pandas, Polars. With ids they are kept for labels that come late."""
        return self._client.run(requests.predict(("streams", self.name), X, ids, interval))

    def feedback(
        self,
        X: Any,
        y: Any,
        *,
        ids: Any = None,
        times: Any = None,
        return_predictions: bool = False,
        key: str | None = None,
    ) -> Learned:
        """Teach it one batch, once however often it has to be sent; ``X`` ``None`` where all ids wait for labels."""
        call = requests.feedback(self.name, X, y, ids, times, with_predictions=return_predictions, key=key)
        return self._client.run(call)

    def labels(self, labels: Mapping[str, Any]) -> Learned:
        """Label rows that were predicted under ids."""
        return self._client.run(requests.labels(self.name, labels))

    def upload(
        self,
        rows: Any,
        targets: Any = None,
        *,
        target: str | None = None,
        batch: int = 32,
        upload: str | None = None,
        progress: Progress = untold,
    ) -> Uploaded:
        """Teach it rows without an end, a batch at a time; each row once, also after cuts.

        Args:
            rows: ``{"input", "target", "id"?, "time"?}`` each, an iterable of any length; or rows and ``targets``; or a
                frame and ``target``, its column of labels.
            targets: One label a row.
            target: A column.
            batch: Rows of a batch.
            upload: A name for it; sent again under the same name, rows that were learned are skipped.
            progress: Told how many rows are learned.

        Raises:
            UploadStoppedError: A row was refused; those before it are learned.
        """
        lines = lines_of(rows, targets, target=target)
        plan = upload_parts(self.name, lines, upload or new_key(), batch, progress, length_of(rows))
        return self._client.uploaded(plan)

    def upload_offset(self, upload: str) -> int:
        """How many rows of an upload it has learned."""
        try:
            return self._client.run(requests.offset(self.name, upload))
        except NotFoundError:
            return 0

    def events(self, after: str | None = None, *, follow: bool = False) -> Iterator[Event]:
        """What happened to it, oldest first; with ``follow`` also what happens from now on, without an end."""
        if follow:
            return self._client.followed(self.name, after)
        return self._client.pages(lambda cursor: requests.events(self.name, cursor or after))

    def revisions(self) -> Iterator[Revision]:
        """What was committed when, oldest first."""
        return self._client.pages(lambda cursor: requests.revisions(self.name, cursor))

    def rollback(self, revision: int | None = None, *, before: Any = None) -> Restored:
        """Back to a revision, or to the last one before a time."""
        return self._client.run(requests.rollback(self.name, revision, before))

    def state(self) -> StreamInfo:
        """Where it stands."""
        return self._client.run(requests.state(self.name))

    def reset(self) -> StreamInfo:
        """Back to the meta-initialization."""
        return self._client.run(requests.reset(self.name))

    def snapshot(self) -> bytes:
        """All of it, as one safetensors file."""
        return self._client.run(requests.snapshot(self.name))

    def restore(self, file: bytes) -> StreamInfo:
        """Out of such a file."""
        return self._client.run(requests.restore(self.name, file))

    def delete(self) -> None:
        """Delete it from memory and disk."""
        self._client.run(requests.delete(self.name))
