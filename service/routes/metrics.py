"""What Prometheus reads."""

from fastapi import APIRouter
from starlette.responses import Response

from service.metrics import MEDIA_TYPE, exposition
from service.routes.context import Serving

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters and times, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: Serving) -> Response:
    """Of all workers; a stream never is a label."""
    own = service.streams.metrics.stated()
    workers = [own] if service.fleet is None else await service.fleet.metrics(own)
    return Response(exposition(workers), media_type=MEDIA_TYPE)
