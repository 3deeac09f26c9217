"""Models: what can be served, and what the frozen start answers."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.errors import InvalidError
from service.json_body import read_body, read_json, require_type
from service.routes.answers import answer, page, predicted
from service.routes.context import ModelName, Serving
from service.routes.describe import BINARY, FILE, body_of, page_of
from service.schemas import ActivateBody, PredictBody, parse_activate, parse_predict
from service.types import Added, ModelInfo, Predicted

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="Every model", responses=page_of(ModelInfo))
async def list_models(service: Serving) -> Response:
    """All served models, by name."""
    return page(service.streams.models(), None)


@router.get("/{model}", summary="One model", responses={200: {"model": ModelInfo}})
async def get_model(
    service: Serving,
    model: ModelName,
    version: Annotated[int | None, Query(ge=1, lt=2**31, description="Left out: the active one.")] = None,
) -> Response:
    """Its features, classes, experts, detector and the scores of its meta-validation, as of one of its versions."""
    return answer(await service.streams.model_at(model, version))


@router.post(
    "/{model}/versions",
    summary="Add a version of a model",
    status_code=201,
    responses={201: {"model": Added}},
    openapi_extra={"requestBody": {"required": True, **BINARY}},
)
async def add_version(service: Serving, model: ModelName, request: Request) -> Response:
    """The body is a bundle as `acclimate train` writes it; a model that is not there is made.

    Not active until it is activated. The bytes of a version that is there already are that version.
    """
    require_type(request, FILE)
    bundle = await read_body(request, service.settings.bundle_bytes_max)
    return answer(Added(model, await service.shelf.put(model, bundle)), 201)


@router.post(
    "/{model}/activate",
    summary="Make a version the active one",
    responses={200: {"model": ModelInfo}},
    openapi_extra=body_of(ActivateBody),
)
async def activate(service: Serving, model: ModelName, request: Request) -> Response:
    """Its streams re-adapt from the new start on the rows they retain; meanwhile they go on, and no request fails."""
    version = parse_activate(await read_json(request, service.settings.body_bytes_max))
    await service.shelf.activate(model, version)
    return answer(service.streams.model(model))


@router.delete(
    "/{model}",
    summary="Delete a model",
    status_code=204,
    response_class=Response,
    responses={409: {"$ref": "#/components/responses/Conflict"}},
)
async def delete_model(service: Serving, model: ModelName) -> Response:
    """With all its versions; refused while streams are bound to it."""
    await service.shelf.delete(model)
    return Response(status_code=204)


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
