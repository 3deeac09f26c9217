"""Around every request: an id, a log line, and a problem where something broke."""

import time
from random import Random

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.json_body import header
from service.logs import REQUEST_ID
from service.metrics import Metrics
from service.problems import problem
from service.schemas import is_id
from service.tracing import CURRENT, Tracer

_QUIET = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
_CLIENT_CLOSED = 499
_log = structlog.get_logger("acclimate.http")
_draw = Random()  # noqa: S311 - an id tells requests apart and opens nothing; the system's own draws take a call each


class RequestMiddleware:
    """Gives each request an id (the client's ``X-Request-Id`` if it is one), answers with it, logs and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self.app = app
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything unforeseen becomes a 500 that says nothing about the inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = header(scope, b"x-request-id")
        request_id = given if is_id(given) else f"{_draw.getrandbits(128):032x}"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        token = REQUEST_ID.set(request_id)
        traced = None
        if self._tracer is not None and scope["path"] not in _QUIET:
            traced = self._tracer.request(scope, request_id)
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _CLIENT_CLOSED
        except Exception as error:
            _log.error("failed", exc_info=error, **_subject(scope))
            if status:
                raise
            failure = ServiceError("Something broke on our side; the log has it under this answer's X-Request-Id.")
            await problem(failure, scope)(scope, receive, send_with_id)
        finally:
            if scope["path"] not in _QUIET:
                seconds, subject = time.perf_counter() - started, _subject(scope)
                if traced is None:
                    self._metrics.request(subject["route"], subject["method"], status, seconds)
                else:
                    CURRENT.set(())
                    traced.end(subject["route"], status, subject.get("stream"))
                    self._metrics.request(subject["route"], subject["method"], status, seconds, traced.id)
                    subject["trace_id"] = traced.id
                _log.info("request", status=status, duration_ms=round(seconds * 1e3, 2), **subject)
            REQUEST_ID.reset(token)


def _subject(scope: Scope) -> dict[str, str]:
    """What a request was about: the route, not the path, and the stream; never a value."""
    subject = {"method": scope["method"], "route": scope.get("route_path") or getattr(scope.get("route"), "path", "-")}
    stream = scope.get("path_params", {}).get("stream", "")
    if is_id(stream):
        subject["stream"] = stream
    return subject
