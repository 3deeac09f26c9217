"""Webhooks: who is called when something happens to a stream."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from service.json_body import read_json
from service.routes.answers import answer, page
from service.routes.context import Serving
from service.routes.describe import body_of, page_of
from service.schemas import ID_PATTERN, WebhookBody, parse_webhook
from service.types import WebhookInfo

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
WebhookId = Annotated[str, Path(pattern=ID_PATTERN, description="Id of a webhook.")]


@router.post(
    "",
    summary="Tell a URL of events",
    status_code=201,
    responses={201: {"model": WebhookInfo}, 409: {"$ref": "#/components/responses/Conflict"}},
    openapi_extra=body_of(WebhookBody),
)
async def add_webhook(service: Serving, request: Request) -> Response:
    """Of those that are committed from now on, signed as Standard Webhooks has it, until it has heard each of them.

    The answer alone has the `secret`.
    """
    asked = parse_webhook(await read_json(request, service.settings.body_bytes_max))
    return answer(await service.post.add(*asked), 201)


@router.get("", summary="Every webhook", responses=page_of(WebhookInfo))
async def list_webhooks(service: Serving) -> Response:
    """By id, without their secrets."""
    return page(service.streams.webhooks.infos(), None)


@router.get("/{webhook}", summary="One webhook", responses={200: {"model": WebhookInfo}})
async def get_webhook(service: Serving, webhook: WebhookId) -> Response:
    """`active` is false once its URL has answered 410: nothing is told to it any more."""
    return answer(service.streams.webhooks.info(webhook))


@router.delete("/{webhook}", summary="Delete a webhook", status_code=204, response_class=Response)
async def delete_webhook(service: Serving, webhook: WebhookId) -> Response:
    """It is told nothing more."""
    await service.post.delete(webhook)
    return Response(status_code=204)
