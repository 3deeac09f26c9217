"""Teach a stream: one batch of labelled rows."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import InvalidError
from service.idempotency import asked_once
from service.json_body import declared_type, header, read_json
from service.routes.answers import again, learned
from service.routes.context import Serving, StreamId
from service.routes.describe import IDEMPOTENCY_KEY, KEY, refuse_key
from service.routes.upload import MEDIA_TYPES, UPLOAD, take_upload, upload_body
from service.schemas import FeedbackBody, parse_feedback
from service.types import Learned

router = APIRouter(prefix="/v1/streams/{stream}", tags=["streams"])
RETURN = {
    "name": "return",
    "in": "query",
    "schema": {"type": "string", "enum": ["predictions"]},
    "description": "Also answer the predictions that were made before learning.",
}


@router.post(
    "/feedback",
    summary="Predict, score, detect drift, learn, commit",
    responses={200: {"model": Learned}},
    openapi_extra=upload_body(FeedbackBody, MEDIA_TYPES) | {"parameters": [RETURN, IDEMPOTENCY_KEY, *UPLOAD]},
)
async def feedback(service: Serving, stream: StreamId, request: Request) -> Response:
    """The batch is taken whole or not at all; 200 means that it is committed and synced.

    As `application/x-ndjson` or `application/vnd.apache.arrow.stream`, an upload of any length: learned in batches as
    it comes, answered with a line per committed batch and one of totals.

    With an `Idempotency-Key` a repeat within 24 hours changes nothing and gets the first answer again, with
    `Idempotent-Replayed: true`.
    """
    key = header(request.scope, KEY)
    if declared_type(request) in MEDIA_TYPES:
        refuse_key(key)
        return await take_upload(service, stream, request)
    with_predictions = _wants_predictions(request)
    body = await read_json(request, service.settings.body_bytes_max)
    asked = parse_feedback(body, service.settings.batch_rows_max)
    if not key:
        value = await service.streams.feedback(stream, *asked)
        return learned(value, with_predictions=with_predictions)
    once = asked_once(key, body, with_predictions=with_predictions)
    return again(*await service.streams.feedback_once(once, stream, *asked))


def _wants_predictions(request: Request) -> bool:
    wanted = request.query_params.get("return")
    if wanted not in {None, "predictions"}:
        raise InvalidError.at(("query", "return"), "expected predictions, or no such parameter")
    return wanted is not None
