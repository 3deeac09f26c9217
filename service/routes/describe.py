"""Pieces of the OpenAPI description that routes state beside themselves."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from service.errors import InvalidError
from service.idempotency import HEADER, KEY_CHARS_MAX
from service.oip import InferBody, RepositoryIndexBody
from service.schemas import (
    ActivateBody,
    FeedbackBody,
    LabelsBody,
    ManyFeedbackBody,
    ManyPredictBody,
    PredictBody,
    RollbackBody,
    StreamBody,
    WebhookBody,
)

BODIES: tuple[type[BaseModel], ...] = (
    StreamBody,
    PredictBody,
    FeedbackBody,
    LabelsBody,
    ManyPredictBody,
    ManyFeedbackBody,
    RollbackBody,
    ActivateBody,
    WebhookBody,
    InferBody,
    RepositoryIndexBody,
)
"""Request bodies, which routes read by hand and FastAPI therefore does not know."""

FILE = "application/octet-stream"
BINARY = {"content": {FILE: {"schema": {"type": "string", "format": "binary"}}}}
"""A safetensors file, as a body."""
KEY = HEADER.lower().encode()
IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX},
    "description": "A name for this request: a repeat of it changes nothing and gets the first answer. Not on uploads.",
}
ItemT = TypeVar("ItemT")


class Page(BaseModel, Generic[ItemT]):
    """One page of a list; ``next_cursor`` is null on the last one."""

    items: list[ItemT]
    next_cursor: str | None


def body_of(body: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The operation's request body, as JSON."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def refuse_key(key: str) -> None:
    """Raise InvalidError where an upload comes with an idempotency key."""
    if key:
        raise InvalidError.at(("header", HEADER), "not taken on uploads: name an upload with Upload-Id to repeat it")


def page_of(item: type[Any], others: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The operation's answer: a page of ``item``; ``others`` are further media types of it."""
    stated: dict[str, Any] = {"model": Page[item]}  # type: ignore[valid-type]  # a type that is computed
    return {200: stated if others is None else {**stated, "content": others}}
