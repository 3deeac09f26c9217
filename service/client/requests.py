"""Each thing that can be asked, as a ``Call``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from service.client.calls import BINARY, NDJSON, Call, Reply, body_of, new_key
from service.client.data import rows_of, values_of
from service.client.errors import ApiError, UploadStoppedError, error_of
from service.client.replies import (
    Event,
    Learned,
    ModelInfo,
    Prediction,
    Restored,
    Revision,
    StreamInfo,
    Webhook,
    read,
)

Page = tuple[list[Any], str | None]


def _path(*parts: str) -> str:
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def _one(kind: type[Any]) -> Any:
    return lambda reply: read(kind, reply.json())


def _page(kind: type[Any]) -> Any:
    def page(reply: Reply) -> Page:
        stated = reply.json()
        return [read(kind, item) for item in stated["items"]], stated["next_cursor"]

    return page


def _nothing(_reply: Reply) -> None:
    return None


# --- models ---


def limits() -> Call[dict[str, Any]]:
    """Every limit in force."""
    return Call("GET", _path("limits"), lambda reply: dict(reply.json()))


def models() -> Call[list[ModelInfo]]:
    """Every model."""
    return Call("GET", _path("models"), lambda reply: _page(ModelInfo)(reply)[0])


def model(name: str) -> Call[ModelInfo]:
    """One model."""
    return Call("GET", _path("models", name), _one(ModelInfo))


def add_version(name: str, bundle: bytes) -> Call[int]:
    """Add a version of a model."""
    return Call(
        "POST",
        _path("models", name, "versions"),
        lambda reply: int(reply.json()["version"]),
        content=bundle,
        headers={"Content-Type": BINARY},
    )


def activate(name: str, version: int) -> Call[ModelInfo]:
    """Make a version the active one."""
    content, headers = body_of({"version": version})
    return Call("POST", _path("models", name, "activate"), _one(ModelInfo), content=content, headers=headers)


def delete_model(name: str) -> Call[None]:
    """Delete a model."""
    return Call("DELETE", _path("models", name), _nothing, safe=False)


def predict(path: Sequence[str], X: Any, ids: Any, interval: float | None) -> Call[Prediction]:
    """Predict by a stream or a frozen start."""
    body: dict[str, Any] = {"inputs": rows_of(X)}
    if ids is not None:
        body["ids"] = values_of(ids)
    if interval is not None:
        body["interval"] = interval
    content, headers = body_of(body)
    return Call("POST", _path(*path, "predict"), _one(Prediction), content=content, headers=headers)


# --- streams ---


def streams(prefix: str, of_model: str | None, cursor: str | None) -> Call[Page]:
    """One page of streams."""
    params = {"prefix": prefix or None, "model": of_model, "cursor": cursor}
    return Call("GET", _path("streams"), _page(StreamInfo), params=params)


def create(stream: str, of_model: str, config: Mapping[str, Any] | None, metadata: Any) -> Call[StreamInfo]:
    """Create a stream, or confirm it."""
    body: dict[str, Any] = {"model": of_model}
    if config is not None:
        body["config"] = dict(config)
    if metadata is not None:
        body["metadata"] = dict(metadata)
    content, headers = body_of(body)
    return Call("PUT", _path("streams", stream), _one(StreamInfo), content=content, headers=headers)


def state(stream: str) -> Call[StreamInfo]:
    """Where a stream stands."""
    return Call("GET", _path("streams", stream), _one(StreamInfo))


def delete(stream: str) -> Call[None]:
    """Delete a stream."""
    return Call("DELETE", _path("streams", stream), _nothing, safe=False)


def reset(stream: str) -> Call[StreamInfo]:
    """Back to the meta-initialization."""
    return Call("POST", _path("streams", stream, "reset"), _one(StreamInfo), safe=False)


def feedback(
    stream: str, X: Any, y: Any, ids: Any, times: Any, *, with_predictions: bool, key: str | None
) -> Call[Learned]:
    """Teach a stream one batch, once."""
    body: dict[str, Any] = {"targets": values_of(y)}
    if X is not None:
        body["inputs"] = rows_of(X)
    for name, given in (("ids", ids), ("times", times)):
        if given is not None:
            body[name] = values_of(given)
    content, headers = body_of(body)
    params = {"return": "predictions" if with_predictions else None}
    headers["Idempotency-Key"] = key or new_key()
    return Call("POST", _path("streams", stream, "feedback"), _learned, params, content, headers)


def labels(stream: str, given: Mapping[str, Any]) -> Call[Learned]:
    """Label rows that were predicted under ids."""
    body = {
        "labels": [
            {"id": name, "target": target} for name, target in zip(given, values_of(given.values()), strict=True)
        ]
    }
    content, headers = body_of(body)
    return Call("POST", _path("streams", stream, "labels"), _learned, content=content, headers=headers)


def events(stream: str, after: str | None) -> Call[Page]:
    """One page of events."""
    return Call("GET", _path("streams", stream, "events"), _page(Event), params={"after": after})


def revisions(stream: str, after: str | None) -> Call[Page]:
    """One page of revisions."""
    return Call("GET", _path("streams", stream, "revisions"), _page(Revision), params={"after": after})


def rollback(stream: str, revision: int | None, before: Any) -> Call[Restored]:
    """Back to an earlier revision."""
    body = {"before": values_of([before])[0]} if revision is None else {"revision": revision}
    content, headers = body_of(body)
    path = _path("streams", stream, "rollback")
    return Call("POST", path, _one(Restored), content=content, headers=headers, safe=False)


def snapshot(stream: str) -> Call[bytes]:
    """A stream as a file."""
    return Call("GET", _path("streams", stream, "snapshot"), lambda reply: reply.body)


def restore(stream: str, file: bytes) -> Call[StreamInfo]:
    """A stream out of a file."""
    path = _path("streams", stream, "snapshot")
    return Call("PUT", path, _one(StreamInfo), content=file, headers={"Content-Type": BINARY}, safe=False)


# --- many streams ---


def predict_many(items: Sequence[Mapping[str, Any]]) -> Call[list[Prediction | ApiError]]:
    """Predict by many streams."""
    content, headers = body_of({"items": [_item(item) for item in items]})
    return Call("POST", _path("predict"), lambda reply: _results(Prediction, reply), content=content, headers=headers)


def feedback_many(items: Sequence[Mapping[str, Any]], key: str | None) -> Call[list[Learned | ApiError]]:
    """Teach many streams, each item once."""
    content, headers = body_of({"items": [_item(item) for item in items]})
    headers["Idempotency-Key"] = key or new_key()
    return Call("POST", _path("feedback"), lambda reply: _results(Learned, reply), content=content, headers=headers)


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    stated = dict(item)
    if stated.get("inputs") is not None:
        stated["inputs"] = rows_of(stated["inputs"])
    for name in ("targets", "ids", "times"):
        if stated.get(name) is not None:
            stated[name] = values_of(stated[name])
    return stated


def _results(kind: type[Any], reply: Reply) -> list[Any]:
    return [
        error_of(item["error"]["status"], item["error"]) if "error" in item else read(kind, item)
        for item in reply.json()["results"]
    ]


# --- uploads ---


def offset(stream: str | None, upload: str) -> Call[int]:
    """How many rows of an upload are learned; a service that knows nothing of it says 404."""
    path = _path("uploads", upload) if stream is None else _path("streams", stream, "uploads", upload)
    return Call("GET", path, lambda reply: int(reply.json()["offset"]))


def upload_part(
    stream: str | None, rows: Sequence[Mapping[str, Any]], upload: str, start: int, batch: int
) -> Call[dict[str, Any]]:
    """Some rows of an upload, from number ``start`` on; sent again, they are learned once."""
    path = _path("feedback") if stream is None else _path("streams", stream, "feedback")
    text = b"".join(json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n" for row in rows)
    headers = {"Content-Type": NDJSON, "Upload-Id": upload, "Upload-Offset": str(start)}
    return Call("POST", path, _total, {"batch": batch}, text, headers)


def _total(reply: Reply) -> dict[str, Any]:
    """The last line. Raises UploadStoppedError where it says that a row was refused."""
    last: dict[str, Any] = json.loads(reply.body.splitlines()[-1])
    if last.get("error"):
        raise UploadStoppedError(int(last["offset"]), error_of(last["error"]["status"], last["error"]))
    return last


# --- webhooks ---


def webhooks() -> Call[list[Webhook]]:
    """Every webhook."""
    return Call("GET", _path("webhooks"), lambda reply: _page(Webhook)(reply)[0])


def add_webhook(url: str, kinds: Sequence[str], secret: str | None) -> Call[Webhook]:
    """Tell a URL of events."""
    body: dict[str, Any] = {"url": url, "events": list(kinds)}
    if secret is not None:
        body["secret"] = secret
    content, headers = body_of(body)
    return Call("POST", _path("webhooks"), _one(Webhook), content=content, headers=headers, safe=False)


def delete_webhook(name: str) -> Call[None]:
    """Tell it nothing more."""
    return Call("DELETE", _path("webhooks", name), _nothing, safe=False)


def _learned(reply: Reply) -> Learned:
    return read(Learned, reply.json(), replayed=reply.headers.get("idempotent-replayed") == "true")
