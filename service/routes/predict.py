"""Predict from a stream's adapted state."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.json_body import read_json
from service.routes.answers import predicted
from service.routes.context import Serving, StreamId
from service.routes.describe import body_of
from service.schemas import PredictBody, parse_predict
from service.types import Predicted

router = APIRouter(prefix="/v1/streams/{stream}", tags=["streams"])


@router.post(
    "/predict",
    summary="Predict",
    responses={200: {"model": Predicted}},
    openapi_extra=body_of(PredictBody),
)
async def predict(service: Serving, stream: StreamId, request: Request) -> Response:
    """From the last committed state; never waits for a commit, but with ``ids``: then rows and answers are kept first.

    An id that waits already is answered as before if the row is the same, so that a request may be repeated.
    """
    body = await read_json(request, service.settings.body_bytes_max)
    asked = parse_predict(body, service.settings.batch_rows_max)
    return predicted(await service.streams.predict(stream, asked.inputs, asked.interval, asked.ids))
