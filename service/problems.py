"""The one shape of an error on the wire: ``application/problem+json`` (RFC 9457).

Below ``/v2`` it is that of the Open Inference Protocol, ``{"error": …}``, which knows no 422.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from models import InputError
from service.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    MethodNotAllowedError,
    NotFoundError,
    SaturatedError,
    ServiceError,
    StoreFullError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
)

_log = structlog.get_logger("acclimate.http")
MEDIA_TYPE = "application/problem+json"
_OPEN = "/v2"
"""Paths of the Open Inference Protocol."""


ERRORS: tuple[type[ServiceError], ...] = (
    MalformedError,
    UnauthorizedError,
    ForbiddenError,
    NotFoundError,
    MethodNotAllowedError,
    ConflictError,
    TooLargeError,
    UnsupportedMediaTypeError,
    InvalidError,
    SaturatedError,
    ServiceError,
    UnavailableError,
    StoreFullError,
)
"""Every error that a client may see, by status."""
_BY_STATUS = {error.status: error for error in ERRORS}


def component(error: type[ServiceError]) -> str:
    """Name of an error's response in the OpenAPI description; a subclass shares its parent's.

    Example:
        >>> component(NotFoundError)
        'NotFound'
    """
    listed = _BY_STATUS[error.status]
    return "Internal" if listed is ServiceError else listed.__name__.removesuffix("Error")


def problem(error: ServiceError, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for an error.

    ``type`` refers to the error's entry in the OpenAPI description, ``instance`` is the path that was asked for; what
    happened there is in the log under the answer's ``X-Request-Id``.
    """
    if is_open(scope.get("path", "/")):
        answer = Response(orjson.dumps({"error": error.detail}), open_status(error), headers, "application/json")
    else:
        answer = Response(orjson.dumps(_stated(error, scope)), error.status, headers, MEDIA_TYPE)
    if isinstance(error, UnauthorizedError):
        answer.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


def is_open(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol.

    Example:
        >>> is_open("/v2/models/m"), is_open("/v2"), is_open("/v20")
        (True, True, False)
    """
    return path == _OPEN or path.startswith(f"{_OPEN}/")


def open_status(error: ServiceError | type[ServiceError]) -> int:
    """Status of an error in the Open Inference Protocol, whose clients expect 400 for whatever is wrong in a body."""
    return MalformedError.status if error.status == InvalidError.status else error.status


def _stated(error: ServiceError, scope: Scope) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"/openapi.json#/components/responses/{component(type(error))}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": quote(scope.get("path", "/"), safe="/:@!$&'()*+,;=~"),
    }
    if error.status == InvalidError.status:
        body["errors"] = [{"loc": list(loc), "msg": msg} for loc, msg in error.errors]
    return body


def register(app: FastAPI, methods_at: Callable[[str], Iterable[str]]) -> None:
    """Make every error of ``app`` a problem, those of the framework too.

    Args:
        app: The application.
        methods_at: The methods that a path takes; the framework knows those of one route only.
    """

    async def _http_exception(request: Request, error: Exception) -> Response:
        raised = cast("HTTPException", error)
        if raised.status_code == MethodNotAllowedError.status:
            allow = ", ".join(sorted(methods_at(request.scope["path"]))) or "GET"
            refusal = MethodNotAllowedError(f"This path does not take {request.method}, it takes {allow}.")
            return problem(refusal, request.scope, {"Allow": allow})
        if raised.status_code == NotFoundError.status:
            return problem(NotFoundError("There is nothing under this path: /docs lists every path."), request.scope)
        kind = _BY_STATUS.get(raised.status_code, ServiceError)
        return problem(kind(f"{kind.title}."), request.scope, raised.headers)

    app.add_exception_handler(ServiceError, _refused)
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(HTTPException, _http_exception)


def refusal(error: ServiceError | InputError, scope: Scope) -> Response:
    """The answer to a request that was refused; those that are our fault are logged."""
    return problem(_noted(error), scope)


def refused(error: ServiceError | InputError, scope: Scope) -> dict[str, Any]:
    """The same as an object, where it is one of several things that an answer says."""
    return _stated(_noted(error), scope)


def _noted(error: ServiceError | InputError) -> ServiceError:
    if isinstance(error, InputError):
        return InvalidError.at(error.loc, error.reason)
    if error.status >= ServiceError.status:
        _log.warning("unavailable", detail=error.detail, exc_info=error.__cause__)
    return error


async def _refused(request: Request, error: Exception) -> Response:
    return refusal(cast("ServiceError | InputError", error), request.scope)


async def _parameter_error(request: Request, error: Exception) -> Response:
    return problem(InvalidError.from_fields(cast("RequestValidationError", error).errors()), request.scope)
