"""The busiest routes, straight from the server to their endpoint.

FastAPI describes them and would serve them alike; its layers take longer than the prediction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from models import InputError
from service import problems
from service.errors import SaturatedError, ServiceError
from service.forwarding import Forwarder
from service.guard import Guard
from service.json_body import header
from service.links import Crew
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.routes.context import check_stream, tenant_of
from service.tenants import Tenants
from service.tracing import Tracer

Endpoint = Callable[..., Awaitable[Response]]
"""Takes ``service``, ``stream`` and ``request``."""
_STREAMS, _PARTS = "/v1/streams/", 2
HELD_MAX = 2_048
"""Requests beyond the queue that are held back at once; more are refused at once."""


class HotPath:
    """Answers ``POST /v1/streams/{stream}/…`` where it knows the end; passes all other requests on.

    Args:
        app: What answers them.
        tenants: Whom it answers.
        guard: Lets requests through.
        metrics: Told of requests.
        endpoints: By the end of the path.
        tracer: Told of requests, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        tenants: Tenants,
        guard: Guard,
        metrics: Metrics,
        endpoints: Mapping[str, Endpoint],
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._tenants = tenants
        self._guard = guard
        self._endpoints = endpoints
        self._own = RequestMiddleware(self._answer, metrics, tracer)
        self._held = 0
        self._refusal_seconds = tenants.settings.refusal_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else the server has to say."""
        path: str = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "POST" and path.startswith(_STREAMS):
            parts = path[len(_STREAMS) :].split("/")
            if len(parts) == _PARTS and parts[0] and parts[1] in self._endpoints:
                scope["path_params"] = {"stream": parts[0]}
                scope["route_path"] = f"{_STREAMS}{{stream}}/{parts[1]}"
                await self._own(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = scope["path_params"]["stream"]
        endpoint = self._endpoints[scope["path"].rpartition("/")[2]]
        try:
            request = Request(scope, self._guard.admit(scope, receive))
            stream = check_stream(stream, header(scope, b"x-stream-id") or None)
            tenant = tenant_of(scope)
            context = self._tenants.peek(tenant) or await self._tenants.context(tenant)
            response = await endpoint(service=context, stream=stream, request=request)
        except SaturatedError as error:
            await self._hold()
            response = problems.refusal(error, scope)
        except (ServiceError, InputError) as error:
            response = problems.refusal(error, scope)
        await response(scope, receive, send)

    async def _hold(self) -> None:
        """Refuse no sooner than after a while.

        To refuse takes a third of the time that learning takes: clients that come back at once would leave none for
        those that are served.
        """
        if self._held < HELD_MAX:
            self._held += 1
            try:
                await asyncio.sleep(self._refusal_seconds)
            finally:
                self._held -= 1


class HotFastAPI(FastAPI):
    """FastAPI behind a ``HotPath``, and that behind a ``Forwarder`` where there are several workers.

    Attributes:
        framework: FastAPI alone, which answers the same.
    """

    def __init__(
        self,
        tenants: Tenants,
        guard: Guard,
        metrics: Metrics,
        endpoints: Mapping[str, Endpoint],
        crew: Crew | None,
        tracer: Tracer | None = None,
        **described: Any,
    ) -> None:
        super().__init__(**described)
        self.framework: ASGIApp = super().__call__
        self._front: ASGIApp = HotPath(self.framework, tenants, guard, metrics, endpoints, tracer)
        if crew is not None:
            self._front = Forwarder(self._front, crew)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        scope["app"] = self
        await self._front(scope, receive, send)
