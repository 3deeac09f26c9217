"""Models: what can be served, and what the frozen start answers."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import InvalidError
from service.json_body import read_json
from service.routes.answers import answer, page, predicted
from service.routes.context import ModelName, Serving
from service.routes.describe import body_of, page_of
from service.schemas import PredictBody, parse_predict
from service.types import ModelInfo, Predicted

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="Every model", responses=page_of(ModelInfo))
async def list_models(service: Serving) -> Response:
    """All served models, by name."""
    return page(service.streams.models(), None)


@router.get("/{model}", summary="One model", responses={200: {"model": ModelInfo}})
async def get_model(service: Serving, model: ModelName) -> Response:
    """Its features, classes, experts, detector and the scores of its meta-validation."""
    return answer(service.streams.model(model))


@router.post(
    "/{model}/predict",
    summary="Predict from the frozen start",
    responses={200: {"model": Predicted}},
    openapi_extra=body_of(PredictBody),
)
async def predict_initial(service: Serving, model: ModelName, request: Request) -> Response:
    """What a stream without a single labelled row would answer."""
    body = await read_json(request, service.settings.body_bytes_max)
    asked = parse_predict(body, service.settings.batch_rows_max)
    if asked.ids is not None:
        raise InvalidError.at(("ids",), "the frozen start keeps no rows; leave them out, or predict on a stream")
    return predicted(await service.streams.predict_initial(model, asked.inputs, asked.interval))
