"""The Open Inference Protocol, version 2: what there is, whether it is ready, and how it was used."""

from importlib.metadata import version as version_of
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.errors import NotFoundError
from service.json_body import read_body
from service.oip import (
    ModelMetadata,
    ModelNames,
    ModelReady,
    ModelState,
    ModelStatistics,
    RepositoryIndexBody,
    ServerMetadata,
    metadata_of,
    parse_index,
    statistics_of,
)
from service.routes import health
from service.routes.answers import answer
from service.routes.context import Context, ModelName, Serving
from service.routes.describe import body_of
from service.types import ModelInfo

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
EXTENSIONS = (
    "binary_tensor_data",
    "model_repository",
    "parameters",
    "sequence",
    "sequence(string_id)",
    "statistics",
    "acclimate_learn",
)
"""What is offered beyond the protocol's core; the last one is ours."""
_VERSION_DIGITS = 9
_METADATA: dict[int | str, dict[str, Any]] = {200: {"model": ModelMetadata}}
_READY: dict[int | str, dict[str, Any]] = {200: {"model": ModelReady}}
_STATISTICS: dict[int | str, dict[str, Any]] = {200: {"model": ModelStatistics}}


def number_of(version: str) -> int:
    """A version out of a path. Raises NotFoundError."""
    if not (version.isascii() and version.isdecimal() and len(version) <= _VERSION_DIGITS and int(version)):
        raise NotFoundError("There is no such version: versions are numbers, counted from 1.")
    return int(version)


ModelVersion = Annotated[str, Path(description="Number of one of the model's versions.")]


@router.get("", summary="This server", responses={200: {"model": ServerMetadata}})
async def server_metadata() -> Response:
    """Its name, version, and the extensions of the protocol that it offers."""
    return answer({"name": "acclimate", "version": version_of("acclimate"), "extensions": EXTENSIONS})


@router.get("/health/live", summary="Whether the process answers, to clients of this protocol")
async def live() -> Response:
    """As `/livez`."""
    return await health.livez()


@router.get("/health/ready", summary="Whether new clients may be sent here, by this protocol")
async def ready(service: Serving) -> Response:
    """As `/readyz`."""
    return await health.readyz(service)


@router.get("/models", summary="The names of all models", responses={200: {"model": ModelNames}})
async def model_names(service: Serving) -> Response:
    """As KServe's own server has it."""
    return answer({"models": [info.name for info in service.streams.models()]})


@router.get("/models/stats", summary="Statistics of all models", responses=_STATISTICS)
async def all_statistics(service: Serving) -> Response:
    """All versions of all models, over all workers, since they started; by whatever route they were asked."""
    return await _statistics(service, service.streams.models())


@router.get("/models/{model}", summary="A model's tensors", responses=_METADATA)
async def metadata(service: Serving, model: ModelName) -> Response:
    """Those of its active version."""
    return answer(metadata_of(await service.streams.model_at(model)))


@router.get("/models/{model}/versions/{version}", summary="The tensors of a model's version", responses=_METADATA)
async def metadata_at(service: Serving, model: ModelName, version: ModelVersion) -> Response:
    """What it takes, and what it answers."""
    return answer(metadata_of(await service.streams.model_at(model, number_of(version))))


@router.get("/models/{model}/ready", summary="Whether a model answers", responses=_READY)
async def model_ready(service: Serving, model: ModelName) -> Response:
    """200 where the service is ready: then all its models are."""
    service.streams.model(model)
    await health.readyz(service)
    return answer({"name": model, "ready": True})


@router.get("/models/{model}/versions/{version}/ready", summary="Whether a model's version answers", responses=_READY)
async def model_ready_at(service: Serving, model: ModelName, version: ModelVersion) -> Response:
    """200 where the service is ready: then all versions are."""
    await service.streams.model_at(model, number_of(version))
    return await model_ready(service, model)


@router.get("/models/{model}/stats", summary="Statistics of a model", responses=_STATISTICS)
async def statistics(service: Serving, model: ModelName) -> Response:
    """All its versions, over all workers, since they started; by whatever route they were asked."""
    return await _statistics(service, [service.streams.model(model)])


@router.get(
    "/models/{model}/versions/{version}/stats", summary="Statistics of a model's version", responses=_STATISTICS
)
async def statistics_at(service: Serving, model: ModelName, version: ModelVersion) -> Response:
    """Over all workers, since they started; by whatever route it was asked."""
    number = number_of(version)
    await service.streams.model_at(model, number)
    return answer(statistics_of([(model, number)], await service.all_streams.statistics()))


@router.post(
    "/repository/index",
    summary="All versions of all models",
    responses={200: {"model": list[ModelState]}},
    openapi_extra=body_of(RepositoryIndexBody, required=False),
)
async def repository_index(service: Serving, request: Request) -> Response:
    """All of them are ready."""
    parse_index(await read_body(request, service.settings.body_bytes_max))
    infos = service.streams.models()
    return answer(
        [{"name": name, "version": str(number), "state": "READY", "reason": ""} for name, number in _versions(infos)]
    )


async def _statistics(service: Context, infos: list[ModelInfo]) -> Response:
    return answer(statistics_of(_versions(infos), await service.all_streams.statistics()))


def _versions(infos: list[ModelInfo]) -> list[tuple[str, int]]:
    return [(info.name, number) for info in infos for number in info.versions]
