"""What Prometheus reads."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.keys import DEFAULT_TENANT
from service.metrics import MEDIA_TYPE, exposition
from service.routes.context import residents, tenant_of

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters and times, for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Of all workers; a stream never is a label. The tenant default sees all tenants, the others themselves."""
    asking, contexts = tenant_of(request.scope), residents(request).contexts
    seen = {name: context for name, context in contexts.items() if asking in {DEFAULT_TENANT, name}}
    groups = []
    for tenant, context in seen.items():
        own = context.streams.metrics.stated()
        workers = [own] if context.fleet is None else await context.fleet.metrics(own)
        labels = {"tenant": tenant} if len(seen) > 1 else {}
        for number, stated in enumerate(workers):
            groups.append((labels | ({"worker": str(number)} if len(workers) > 1 else {}), stated))
    return Response(exposition(groups), media_type=MEDIA_TYPE)
