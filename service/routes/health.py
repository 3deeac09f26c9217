"""Liveness and readiness: open always, never logged, without any work."""

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import UnavailableError
from service.routes.answers import answer
from service.routes.context import Serving

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Whether the process answers")
async def livez() -> Response:
    """Touches nothing but the event loop."""
    return answer({"live": True})


@router.get("/readyz", summary="Whether new clients may be sent here")
async def readyz(service: Serving) -> Response:
    """503 until the store answers and recovery is done, and again as soon as the service is told to stop."""
    if not await service.all_ready():
        raise UnavailableError("The service is starting or stopping: ask again in a second.")
    return answer({"ready": True})
