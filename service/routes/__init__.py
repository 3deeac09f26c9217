"""HTTP routes: one small file a resource, and the table of them."""

from fastapi import APIRouter
from fastapi.routing import APIRoute

from service.routes import (
    dashboard,
    events,
    feedback,
    health,
    history,
    infer,
    labels,
    limits,
    many,
    metrics,
    models,
    open_inference,
    overview,
    predict,
    streams,
    upload,
    webhooks,
)

ROUTERS: tuple[APIRouter, ...] = (
    predict.router,
    feedback.router,
    labels.router,
    limits.router,
    models.router,
    streams.router,
    events.router,
    history.router,
    many.router,
    upload.router,
    webhooks.router,
    infer.router,
    open_inference.router,
    health.router,
    metrics.router,
    overview.router,
    dashboard.router,
)
"""Every resource that is served. They are tried in this order, so the busiest come first."""

HOT_ENDPOINTS = {"predict": predict.predict, "feedback": feedback.feedback, "labels": labels.labels}
"""What is asked of a stream most, by the end of its path."""


def methods_at(path: str) -> set[str]:
    """The methods that a path takes, over all routes.

    Example:
        >>> sorted(methods_at("/v1/streams/s1"))
        ['DELETE', 'GET', 'PUT']
    """
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
