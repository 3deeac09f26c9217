"""Pieces of the OpenAPI description that routes state beside themselves."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from service.oip import InferBody, RepositoryIndexBody
from service.schemas import (
    FeedbackBody,
    LabelsBody,
    ManyFeedbackBody,
    ManyPredictBody,
    PredictBody,
    StreamBody,
)

BODIES: tuple[type[BaseModel], ...] = (
    StreamBody,
    PredictBody,
    FeedbackBody,
    LabelsBody,
    ManyPredictBody,
    ManyFeedbackBody,
    InferBody,
    RepositoryIndexBody,
)
"""Request bodies, which routes read by hand and FastAPI therefore does not know."""

ItemT = TypeVar("ItemT")


class Page(BaseModel, Generic[ItemT]):
    """One page of a list; ``next_cursor`` is null on the last one."""

    items: list[ItemT]
    next_cursor: str | None


def body_of(body: type[BaseModel]) -> dict[str, Any]:
    """The operation's request body, as JSON."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def page_of(item: type[Any]) -> dict[int | str, dict[str, Any]]:
    """The operation's answer: a page of ``item``."""
    return {200: {"model": Page[item]}}  # type: ignore[valid-type]  # a type that is computed
