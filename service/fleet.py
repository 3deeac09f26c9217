"""All streams, whichever worker has them: what concerns several of them at once asks each worker for its own."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, Protocol

import orjson

from models import InputError
from service import errors
from service.errors import ConflictError, FieldError, NotFoundError, ServiceError, UnavailableError
from service.idempotency import Asked
from service.keys import DEFAULT_TENANT
from service.links import Crew, Kind, Link, LostError
from service.metrics import Stateds
from service.overview import merged, overview_of
from service.statistics import Counts, summed
from service.store import UploadPart
from service.streams import Streams
from service.types import Learned, Made, Overview, Predicted, Row, StreamInfo, WebhookInfo
from service.webhooks import Webhooks

READY_SECONDS = 1.0
"""How long another worker is waited for when it is asked whether it is ready."""
_KINDS: Mapping[str, type[ServiceError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ServiceError)
}


class Door(Protocol):
    """What may be asked of several streams at once; ``service.streams.Streams`` has it in full."""

    async def predict(
        self, stream: str, inputs: Sequence[Row], interval: float | None = None, ids: Sequence[str] | None = None
    ) -> Predicted:
        """Predict from a stream's last committed state."""
        ...

    async def predict_initial(
        self, model: str, inputs: Sequence[Row], interval: float | None = None, version: int | None = None
    ) -> Predicted:
        """What a model's frozen start answers."""
        ...

    async def reset(self, stream: str) -> StreamInfo:
        """Put a stream back to the meta-initialization."""
        ...

    async def statistics(self) -> "list[Counts]":
        """What each version of a model that was asked has done."""
        ...

    async def overview(self, after: float = 0.0) -> Overview:
        """What there is, and what was done in the intervals that end after a time (epoch seconds)."""
        ...

    async def feedback(
        self,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
        part: UploadPart | None = None,
    ) -> Learned:
        """Learn and commit one batch of a stream."""
        ...

    async def feedback_once(
        self,
        asked: Asked,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
    ) -> tuple[bytes, bool]:
        """As ``feedback``, once: the answer's JSON, and whether it was given before."""
        ...

    async def uploaded(self, upload: str, stream: str | None) -> int | None:
        """How many rows of an upload a stream has got to, or (``None``) an upload to many streams."""
        ...

    async def put_uploaded(self, upload: str, rows: int) -> None:
        """Keep how far an upload to many streams has got."""
        ...

    async def list(
        self, prefix: str = "", model: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[StreamInfo], str | None]:
        """One page of streams by id, and the cursor of the next."""
        ...


class Shelf(Protocol):
    """What is done with models, on all workers."""

    async def put(self, name: str, bundle: bytes) -> int:
        """Add a version of a model, not active; its number."""
        ...

    async def activate(self, name: str, version: int) -> None:
        """Make a version the active one."""
        ...

    async def delete(self, name: str) -> None:
        """Remove a model."""
        ...


class Post(Protocol):
    """What is done with webhooks, on all workers."""

    async def add(self, url: str, kinds: Sequence[str], secret: str | None) -> WebhookInfo:
        """Tell a URL of events."""
        ...

    async def delete(self, name: str) -> None:
        """Tell it nothing more."""
        ...


class FleetWebhooks:
    """Webhooks of all workers, each of which tells of its own streams."""

    def __init__(self, fleet: "Fleet", own: Webhooks) -> None:
        self._fleet = fleet
        self._own = own

    async def add(self, url: str, kinds: Sequence[str], secret: str | None) -> WebhookInfo:
        """On all workers, under one id and secret."""
        made = await self._own.add(url, kinds, secret)
        await self._fleet.call_others("add_webhook", url, list(kinds), made.secret, made.id)
        return made

    async def delete(self, name: str) -> None:
        """On all workers."""
        await self._own.delete(name)
        with suppress(NotFoundError):  # where they share a store, another may have heard of it
            await self._fleet.call_others("delete_webhook", name)


class Fleet:
    """The streams of all workers.

    Args:
        streams: One's own.
        crew: All workers.
        ready: Whether this worker takes requests.
        tenant: Whose streams they are.
    """

    def __init__(self, streams: Streams, crew: Crew, ready: Callable[[], bool], tenant: str = DEFAULT_TENANT) -> None:
        self._streams = streams
        self._tenant = tenant
        self._own, self._peers, self._owner = crew.own, crew.peers, crew.owner
        self._ready = ready
        self.webhooks = FleetWebhooks(self, streams.webhooks)

    async def predict(
        self, stream: str, inputs: Sequence[Row], interval: float | None = None, ids: Sequence[str] | None = None
    ) -> Predicted:
        """By whoever has the stream."""
        owner = self._owner(stream)
        if owner == self._own:
            return await self._streams.predict(stream, inputs, interval, ids)
        return Predicted(**await self._call(owner, "predict", stream, inputs, interval, ids))

    async def predict_initial(
        self, model: str, inputs: Sequence[Row], interval: float | None = None, version: int | None = None
    ) -> Predicted:
        """By this worker: every one has all models."""
        return await self._streams.predict_initial(model, inputs, interval, version)

    async def reset(self, stream: str) -> StreamInfo:
        """By whoever has the stream."""
        owner = self._owner(stream)
        if owner == self._own:
            return await self._streams.reset(stream)
        return StreamInfo(**await self._call(owner, "reset", stream))

    async def statistics(self) -> "list[Counts]":
        """Of all workers."""

        async def of(worker: int) -> "list[Counts]":
            if worker == self._own:
                return await self._streams.statistics()
            return [Counts(**found) for found in await self._call(worker, "statistics")]

        return summed(chain.from_iterable(await asyncio.gather(*map(of, range(len(self._peers))))))

    async def overview(self, after: float = 0.0) -> Overview:
        """Of all workers."""

        async def of(worker: int) -> Overview:
            if worker == self._own:
                return await self._streams.overview(after)
            return overview_of(await self._call(worker, "overview", after))

        found = merged(await asyncio.gather(*map(of, range(len(self._peers)))))
        if not self._streams.shared:
            return found
        whole = await self._streams.overview(after)  # what is in the store, each has counted
        return replace(found, states=whole.states, models=whole.models, events=whole.events)

    async def feedback(
        self,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
        part: UploadPart | None = None,
    ) -> Learned:
        """By whoever has the stream."""
        owner = self._owner(stream)
        if owner == self._own:
            return await self._streams.feedback(stream, inputs, targets, ids, times, model=model, part=part)
        stated = None if part is None else list(part)
        found = await self._call(owner, "feedback", stream, inputs, targets, ids, times, model, stated)
        made = found.pop("made")
        return Learned(**found, made=None if made is None else Made(**made))

    async def feedback_once(
        self,
        asked: Asked,
        stream: str,
        inputs: Sequence[Row] | None,
        targets: Sequence[Any],
        ids: Sequence[str | None] | None = None,
        times: Sequence[float | None] | None = None,
        *,
        model: str | None = None,
    ) -> tuple[bytes, bool]:
        """By whoever has the stream."""
        owner = self._owner(stream)
        if owner == self._own:
            return await self._streams.feedback_once(asked, stream, inputs, targets, ids, times, model=model)
        body, replayed = await self._call(
            owner, "feedback_once", list(asked), stream, inputs, targets, ids, times, model
        )
        return str(body).encode(), bool(replayed)

    async def uploaded(self, upload: str, stream: str | None) -> int | None:
        """From whoever has the stream; of an upload to many, from the worker that its name leads to."""
        owner = self._owner(upload if stream is None else stream)
        if owner == self._own:
            return await self._streams.uploaded(upload, stream)
        found = await self._call(owner, "uploaded", upload, stream)
        return None if found is None else int(found)

    async def put_uploaded(self, upload: str, rows: int) -> None:
        """By the worker that the upload's name leads to."""
        owner = self._owner(upload)
        if owner == self._own:
            await self._streams.put_uploaded(upload, rows)
        else:
            await self._call(owner, "put_uploaded", upload, rows)

    async def put(self, name: str, bundle: bytes) -> int:
        """A model's version on all workers, under the number that this one gives it."""
        version = await self._streams.catalogue.put(name, bundle)
        text = b64encode(bundle).decode()
        await self.call_others("put_model", name, text, version)
        return version

    async def activate(self, name: str, version: int) -> None:
        """On all workers."""
        await self._streams.catalogue.activate(name, version)
        await self.call_others("activate", name, version)

    async def delete(self, name: str) -> None:
        """On all workers, unless one of them has a stream of the model."""
        used, _ = await self.list(model=name, limit=1)
        if used:
            raise ConflictError(f"Streams are bound to model {name}: delete them first.")
        await self._streams.catalogue.delete(name)
        await self.call_others("delete_model", name)

    async def call_others(self, name: str, *arguments: Any) -> None:
        """Ask the same of all other workers."""
        others = (worker for worker in range(len(self._peers)) if worker != self._own)
        await asyncio.gather(*(self._call(worker, name, *arguments) for worker in others))

    async def list(
        self, prefix: str = "", model: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[StreamInfo], str | None]:
        """One page out of those of all workers: each has at least the next ``limit`` of its own.

        Where they share a store each has all of them.
        """
        if self._streams.shared:
            return await self._streams.list(prefix, model, limit, cursor)

        async def page(worker: int) -> tuple[list[Any], str | None]:
            if worker == self._own:
                infos, after = await self._streams.list(prefix, model, limit, cursor)
                return [asdict(info) for info in infos], after
            found = await self._call(worker, "list", prefix, model, limit, cursor)
            return found[0], found[1]

        pages = await asyncio.gather(*(page(worker) for worker in range(len(self._peers))))
        merged = sorted((info for infos, _ in pages for info in infos), key=lambda info: str(info["stream"]))
        more = len(merged) > limit or any(after is not None for _, after in pages)
        found = [StreamInfo(**info) for info in merged[:limit]]
        return found, found[-1].stream if more and found else None

    async def metrics(self, own: Stateds) -> Sequence[Stateds]:
        """Those of all workers, in their order; one that does not answer has none."""

        async def asked(worker: int) -> Stateds:
            if worker == self._own:
                return own
            try:
                async with asyncio.timeout(READY_SECONDS):
                    found: Stateds = await self._call(worker, "metrics")
                    return found
            except (ServiceError, TimeoutError):
                return []

        return await asyncio.gather(*(asked(worker) for worker in range(len(self._peers))))

    async def ready(self) -> bool:
        """Whether all workers take requests."""

        async def asked(worker: int) -> bool:
            if worker == self._own:
                return self._ready()
            try:
                async with asyncio.timeout(READY_SECONDS):
                    return bool(await self._call(worker, "ready"))
            except (ServiceError, TimeoutError):
                return False

        return all(await asyncio.gather(*(asked(worker) for worker in range(len(self._peers)))))

    async def _call(self, worker: int, name: str, *arguments: Any) -> Any:
        peer = self._peers[worker]
        try:
            link = await peer.take()
            try:
                await link.send(Kind.CALL, orjson.dumps([self._tenant, name, arguments]))
                answer = await link.frame()
            except BaseException:
                link.close()
                raise
        except LostError as error:
            raise UnavailableError("Another worker is starting or stopping: repeat the request in a second.") from error
        peer.give_back(link)
        kind, value = orjson.loads(answer.content)
        if kind == "done":
            return value
        if kind == InputError.__name__:
            raise InputError(tuple(value[0]), value[1])
        detail, places, retry_after_s = value
        raise _KINDS.get(kind, ServiceError)(
            detail, tuple(FieldError(tuple(loc), msg) for loc, msg in places), retry_after_s=retry_after_s
        )

    async def answer(self, link: Link, name: str, arguments: Sequence[Any]) -> None:
        """Answer a call of another worker. Raises LostError where that worker gives up."""
        try:
            answer = ["done", await self._answers(name, arguments)]
        except InputError as error:
            answer = [InputError.__name__, [error.loc, error.reason]]
        except ServiceError as error:
            answer = [type(error).__name__, [error.detail, list(map(list, error.errors)), error.retry_after_s]]
        except Exception as error:
            raise LostError from error
        await link.send(Kind.WHOLE, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z))

    async def _answers(self, name: str, arguments: Sequence[Any]) -> Any:
        streams = self._streams
        if name == "predict":
            return await streams.predict(*arguments)
        if name == "feedback":
            *plain, model, part = arguments
            return await streams.feedback(*plain, model=model, part=None if part is None else UploadPart(*part))
        if name == "feedback_once":
            asked, *plain, model = arguments
            body, replayed = await streams.feedback_once(Asked(*asked), *plain, model=model)
            return body.decode(), replayed
        if name == "put_model":
            model, text, version = arguments
            return await streams.catalogue.put(model, b64decode(text), version)
        if name == "activate":
            return await streams.catalogue.activate(*arguments)
        if name == "delete_model":
            return await streams.catalogue.delete(*arguments)
        if name == "add_webhook":
            return asdict(await streams.webhooks.add(*arguments))
        if name == "delete_webhook":
            return await streams.webhooks.delete(*arguments)
        if name == "uploaded":
            return await streams.uploaded(*arguments)
        if name == "put_uploaded":
            return await streams.put_uploaded(*arguments)
        if name == "list":
            return await streams.list(*arguments)
        if name == "metrics":
            return streams.metrics.stated()
        if name == "reset":
            return await streams.reset(*arguments)
        if name == "overview":
            return await streams.overview(*arguments)
        if name == "statistics":
            return await streams.statistics()
        if name == "ready":
            return self._ready()
        raise LostError(name)
