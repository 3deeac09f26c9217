"""A stream's past: its revisions, back to one of them, and the whole stream as a file."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.json_body import read_body, read_json, require_type
from service.routes.answers import answer, page
from service.routes.context import Limit, Serving, StreamId
from service.routes.describe import BINARY, FILE, body_of, page_of
from service.schemas import NUMBER_MAX, RollbackBody, parse_rollback
from service.types import LearnedRow, Restored, Revision, StreamInfo

router = APIRouter(prefix="/v1/streams/{stream}", tags=["streams"])


@router.get("/revisions", summary="List what was committed when", responses=page_of(Revision))
async def list_revisions(
    service: Serving,
    stream: StreamId,
    limit: Limit,
    after: Annotated[
        int, Query(ge=0, le=NUMBER_MAX, description="Only revisions after this one; next_cursor is one.")
    ] = 0,
) -> Response:
    """Oldest first, as far back as the log is kept."""
    return page(*await service.streams.history.revisions(stream, after, limit))


@router.get("/rows", summary="List learned rows", responses=page_of(LearnedRow))
async def list_rows(
    service: Serving,
    stream: StreamId,
    limit: Limit,
    before: Annotated[
        int | None, Query(ge=0, lt=2**63, description="Only rows with a number below this one; next_cursor is one.")
    ] = None,
) -> Response:
    """Latest first, as far back as the log is kept, each with what was predicted before it was learned."""
    return page(*await service.streams.history.rows(stream, before, limit))


@router.post(
    "/rollback",
    summary="Back to an earlier revision",
    responses={200: {"model": Restored}},
    openapi_extra=body_of(RollbackBody),
)
async def roll_back(service: Serving, stream: StreamId, request: Request) -> Response:
    """As a new revision: the stream predicts as it did then. Ids that were learned since stay learned."""
    asked = parse_rollback(await read_json(request, service.settings.body_bytes_max))
    restored = await service.streams.history.roll_back(stream, asked.revision, asked.before)
    info = await service.streams.get(stream)
    return answer(Restored(info.stream, info.model_version, info.stream_version, restored, info.state))


@router.get(
    "/snapshot",
    summary="Export a stream",
    response_class=Response,
    responses={200: {"description": "One safetensors file", **BINARY}},
)
async def export(service: Serving, stream: StreamId) -> Response:
    """All that its predictions depend on beside the model: its state as tensors, its config, metadata and counts."""
    data = await service.streams.history.export(stream)
    return Response(
        data, media_type=FILE, headers={"Content-Disposition": f'attachment; filename="{stream}.safetensors"'}
    )


@router.put(
    "/snapshot",
    summary="Import a stream",
    status_code=201,
    responses={200: {"model": StreamInfo, "description": "It was there already"}, 201: {"model": StreamInfo}},
    openapi_extra={"requestBody": {"required": True, **BINARY}},
)
async def restore(service: Serving, stream: StreamId, request: Request) -> Response:
    """The state is the exported one, byte for byte, as a new revision.

    The model has to be served here in the version that the file states.
    """
    require_type(request, FILE)
    data = await read_body(request, service.settings.body_bytes_max)
    created = await service.streams.history.restore(stream, data)
    return answer(await service.streams.get(stream), 201 if created else 200)
