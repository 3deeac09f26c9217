"""The Open Inference Protocol, version 2: predictions, and learning, which is our extension."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import inference
from service.errors import MalformedError, TooLargeError, UnsupportedMediaTypeError
from service.json_body import declared_encoding, declared_type, header, read_body
from service.oip import Asked, InferBody, InferReply, Reply, inflate, read_request, write_reply
from service.routes.context import Context, ModelName, Serving, check_stream
from service.routes.describe import body_of
from service.routes.open_inference import ModelVersion, number_of

router = APIRouter(prefix="/v2/models/{model}", tags=["open inference protocol"])
PAUSE_TIMES = 4
"""Pause after a body that became too large, in units of the time that it took: such bodies get a fifth of a core."""
JSON, BINARY = "application/json", "application/octet-stream"
LENGTH = "Inference-Header-Content-Length"
_LENGTH_DIGITS = 12
_TYPES = frozenset({"", JSON, BINARY})
"""Clients state one of these, or none; those that a form in a foreign page could send are refused."""
_FORMAT = {"type": "string", "format": "binary"}
_BODY = body_of(InferBody)
_BODY["requestBody"]["content"][BINARY] = {"schema": _FORMAT}
_DESCRIBED: dict[str, Any] = _BODY | {
    "parameters": [
        {
            "name": LENGTH,
            "in": "header",
            "schema": {"type": "integer", "minimum": 0},
            "description": "Bytes of the JSON part, where tensors in binary form follow it. The answer has it, too.",
        }
    ]
}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": InferReply, "content": {BINARY: {"schema": _FORMAT}}}}


@router.post("/infer", summary="Predict by a stream or the frozen start", responses=_ANSWERS, openapi_extra=_DESCRIBED)
async def infer(service: Serving, model: ModelName, request: Request) -> Response:
    """The stream is the parameter `sequence_id`; without it, or before its first learn, the frozen start answers."""
    return await _infer(service, model, None, request)


@router.post(
    "/versions/{version}/infer",
    summary="Predict by a model's version",
    responses=_ANSWERS,
    openapi_extra=_DESCRIBED,
)
async def infer_at(service: Serving, model: ModelName, version: ModelVersion, request: Request) -> Response:
    """As without the version; 409 where the stream is bound to another one."""
    return await _infer(service, model, number_of(version), request)


@router.post("/learn", summary="Teach a stream", responses=_ANSWERS, openapi_extra=_DESCRIBED)
async def learn(service: Serving, model: ModelName, request: Request) -> Response:
    """An extension of ours: as infer, with the tensor `targets`. Answers the predictions made before learning.

    The batch is taken whole or not at all, and the first one creates the stream; 200 means committed and synced.
    """
    asked = await _read(service, request)
    rows_max = service.settings.batch_rows_max
    return _reply(asked, await inference.learn(service.streams, service.all_streams, asked, model, rows_max))


async def _infer(service: Context, model: str, version: int | None, request: Request) -> Response:
    asked = await _read(service, request)
    rows_max = service.settings.batch_rows_max
    return _reply(asked, await inference.infer(service.streams, service.all_streams, asked, model, version, rows_max))


async def _read(service: Context, request: Request) -> Asked:
    """Take the request apart; its stream stands in the log as those of other routes do."""
    if declared_type(request) not in _TYPES:
        raise UnsupportedMediaTypeError(f"This route reads {JSON} or {BINARY}: say one of them, or nothing.")
    bytes_max = service.settings.body_bytes_max
    body = await read_body(request, bytes_max)
    encoding = declared_encoding(request)
    if encoding:
        body = await _inflated(service, body, encoding)
    json_bytes = _json_bytes(request)
    asked = await inference.off_loop(len(body), lambda: read_request(body, json_bytes))
    if asked.stream is not None:
        check_stream(asked.stream, header(request.scope, b"x-stream-id") or None)
        request.path_params["stream"] = asked.stream
    return asked


async def _inflated(service: Context, body: bytes, encoding: str) -> bytes:
    """A body without its compression; after one that became too large, the next has to wait a while."""
    clock = asyncio.get_running_loop().time
    async with service.inflating:
        began = clock()
        try:
            return await asyncio.to_thread(inflate, body, encoding, service.settings.body_bytes_max)
        except TooLargeError:
            await asyncio.sleep(PAUSE_TIMES * (clock() - began))
            raise


def _json_bytes(request: Request) -> int | None:
    stated = header(request.scope, LENGTH.lower().encode()).strip()
    if not stated:
        return None
    if not (stated.isascii() and stated.isdecimal() and len(stated) <= _LENGTH_DIGITS):
        raise MalformedError(f"{LENGTH} is no number of bytes.")
    return int(stated)


def _reply(asked: Asked, reply: Reply) -> Response:
    body, json_bytes = write_reply(asked, reply)
    if json_bytes is None:
        return Response(body, media_type=JSON)
    return Response(body, headers={LENGTH: str(json_bytes)}, media_type=BINARY)
