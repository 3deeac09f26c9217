"""What Prometheus reads."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.keys import DEFAULT_TENANT
from service.metrics import MEDIA_TYPE, OPENMETRICS, OPENMETRICS_TYPE, exposition
from service.routes.context import residents, tenant_of

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters and times, for Prometheus",
    response_class=Response,
    responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", OPENMETRICS)}}},
)
async def metrics(request: Request) -> Response:
    """Of all workers; a stream never is a label. The tenant default sees all tenants, the others themselves.

    In Prometheus's text format, or in OpenMetrics where the request accepts it: that has traces as exemplars.
    """
    asking, contexts = tenant_of(request.scope), residents(request).contexts
    seen = {name: context for name, context in contexts.items() if asking in {DEFAULT_TENANT, name}}
    groups = []
    for tenant, context in seen.items():
        own = context.streams.metrics.stated()
        workers = [own] if context.fleet is None else await context.fleet.metrics(own)
        labels = {"tenant": tenant} if len(seen) > 1 else {}
        for number, stated in enumerate(workers):
            groups.append((labels | ({"worker": str(number)} if len(workers) > 1 else {}), stated))
    wanted = OPENMETRICS in request.headers.get("accept", "")
    return Response(exposition(groups, openmetrics=wanted), media_type=OPENMETRICS_TYPE if wanted else MEDIA_TYPE)
