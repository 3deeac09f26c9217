"""Many streams in one request."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Scope

from models import InputError
from service.errors import ServiceError
from service.idempotency import asked_once
from service.json_body import declared_type, header, read_json
from service.lines import NDJSON
from service.many import feedback_many, feedback_many_once, predict_many
from service.problems import refused
from service.routes.answers import REPLAYED, answer, predicted_body
from service.routes.context import Serving
from service.routes.describe import IDEMPOTENCY_KEY, KEY, body_of, refuse_key
from service.routes.upload import UPLOAD, take_upload, upload_body
from service.schemas import (
    ManyFeedbackBody,
    ManyItem,
    ManyPredictBody,
    Problem,
    parse_feedback,
    parse_many,
    parse_predict,
)
from service.types import Learned, Predicted
from service.views import learned_body

router = APIRouter(prefix="/v1", tags=["many streams"])


class Refused(BaseModel):
    """What became of an item that was not taken."""

    stream: str
    error: Problem


class PredictResults(BaseModel):
    """One result an item, in their order."""

    results: list[Predicted | Refused] = Field(description="Predictions, or why there are none.")


class FeedbackResults(BaseModel):
    """One result an item, in their order."""

    results: list[Learned | Refused] = Field(description="What was learned and committed, or why nothing was.")


@router.post(
    "/predict",
    summary="Predict by many streams",
    responses={200: {"model": PredictResults}},
    openapi_extra=body_of(ManyPredictBody),
)
async def predict_by_many(service: Serving, request: Request) -> Response:
    """Each item is answered as a predict of its stream; an item's error stands in its place."""
    body = await read_json(request, service.settings.body_bytes_max)
    items = parse_many(body, service.settings.batch_rows_max, parse_predict)
    results = await predict_many(service.all_streams, items)
    stated = [predicted_body(value) if isinstance(value, Predicted) else value for value in results]
    return _answer(items, stated, request.scope)


@router.post(
    "/feedback",
    summary="Teach many streams",
    responses={200: {"model": FeedbackResults}},
    openapi_extra=upload_body(ManyFeedbackBody, (NDJSON,)) | {"parameters": [IDEMPOTENCY_KEY, *UPLOAD]},
)
async def teach_many(service: Serving, request: Request) -> Response:
    """Each item is taken as feedback of its stream, whole or not at all; an item's error stands in its place.

    As `application/x-ndjson`, an upload of any length: each line names its `stream`.

    With an `Idempotency-Key` each item is taken once: a repeat of the request takes those that were not taken before.
    """
    key = header(request.scope, KEY)
    if declared_type(request) == NDJSON:
        refuse_key(key)
        return await take_upload(service, None, request)
    body = await read_json(request, service.settings.body_bytes_max)
    items = parse_many(body, service.settings.batch_rows_max, parse_feedback)
    if key:
        once = asked_once(key, body, with_predictions=False)
        found = await feedback_many_once(service.all_streams, items, once)
        replayed = all(isinstance(each, tuple) and each[1] for each in found)
        kept = [orjson.loads(each[0]) if isinstance(each, tuple) else each for each in found]
        return _answer(items, kept, request.scope, {REPLAYED: "true"} if replayed else None)
    results = await feedback_many(service.all_streams, items)
    stated = [learned_body(value, with_predictions=False) if isinstance(value, Learned) else value for value in results]
    return _answer(items, stated, request.scope)


def _answer(
    items: Sequence[ManyItem],
    results: Sequence[dict[str, Any] | ServiceError | InputError],
    scope: Scope,
    headers: Mapping[str, str] | None = None,
) -> Response:
    found = answer(
        {
            "results": [
                value if isinstance(value, dict) else {"stream": item.stream, "error": refused(value, scope)}
                for item, value in zip(items, results, strict=True)
            ]
        }
    )
    found.headers.update(headers or {})
    return found
