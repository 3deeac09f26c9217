"""Labels that come late, for rows that were predicted under ids."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.json_body import read_json
from service.routes.answers import learned
from service.routes.context import Serving, StreamId
from service.routes.describe import body_of
from service.schemas import LabelsBody, parse_labels
from service.types import Labelled

router = APIRouter(prefix="/v1/streams/{stream}", tags=["streams"])


@router.post(
    "/labels",
    summary="Label rows that were predicted under ids",
    responses={200: {"model": Labelled}},
    openapi_extra=body_of(LabelsBody),
)
async def labels(service: Serving, stream: StreamId, request: Request) -> Response:
    """One batch, in this order: scored as it was predicted, learned from the rows that were kept, then committed.

    ``unknown`` lists the ids that wait for no label, or no more; the others are taken.
    """
    body = await read_json(request, service.settings.body_bytes_max)
    asked = parse_labels(body, service.settings.batch_rows_max)
    value = await service.streams.labels(stream, asked.ids, asked.targets)
    return learned(value, with_predictions=False)
