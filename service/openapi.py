"""The OpenAPI description: what FastAPI derives from the routes, with our bodies and our one shape of error."""

from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    SaturatedError,
    ServiceError,
    StoreFullError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
)
from service.oip import OpenError
from service.problems import ERRORS, MEDIA_TYPE, component, is_open, open_status
from service.routes.describe import BODIES
from service.schemas import InvalidProblem, Problem
from service.scopes import SCOPE_OF

DESCRIPTION = """\
Each **stream** is one client's sequence of labelled rows. It starts from a model's meta-trained initialization, and
every batch of **feedback** is predicted, scored, checked for drift and then learned. An answer 200 to feedback means
that the batch is committed and synced. Where labels come late, **predict** with `ids` keeps the rows, and **labels**
teaches them when they are known. Rows of many streams go in one request, and **uploads** of any length are learned as
they come. Errors are `application/problem+json` (RFC 9457) on every route, but for those of the **Open Inference
Protocol** below `/v2`, whose clients expect `{"error": …}`.
"""
OPEN = "OpenInference"
"""Name of the one response that all errors below /v2 share."""
SECURITY = "key"
_REF = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of ``app``, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _build(app)
    return app.openapi_schema


def serve_description(app: FastAPI) -> None:
    """Answer the description as bytes that are made once: FastAPI encodes it anew for everybody, who need no key."""
    made: list[bytes] = []

    async def described(_request: Request) -> Response:
        if not made:
            made.append(orjson.dumps(describe(app)))
        return Response(made[0], media_type="application/json")

    routes = app.router.routes
    place = next(at for at, route in enumerate(routes) if getattr(route, "path", None) == app.openapi_url)
    routes[place] = Route(str(app.openapi_url), described, methods=["GET"], include_in_schema=False)


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    described = [(model, "validation") for model in (*BODIES, Problem, InvalidProblem, OpenError)]
    schemas.update(models_json_schema(described, ref_template=_REF)[1]["$defs"])  # type: ignore[arg-type]  # a literal
    for beside in ("state", "adapted"):
        schemas["Predicted"]["properties"].pop(beside, None)
    _flatten_learned(schemas)
    components["responses"] = {component(error): _response(error) for error in ERRORS}
    components["responses"][OPEN] = {
        "description": "An error of the Open Inference Protocol.",
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=OpenError.__name__)}}},
    }
    described_key = "Needed as soon as there is a key; `acclimate keys create` makes one."
    components["securitySchemes"] = {SECURITY: {"type": "http", "scheme": "bearer", "description": described_key}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _state_errors(path, method, operation)
    return document


def _flatten_learned(schemas: dict[str, Any]) -> None:
    """On the wire the predictions that ``?return=predictions`` adds stand beside the other fields."""
    made = schemas.pop("Made", {"properties": {}})
    for name in ("Learned", "Labelled"):
        schemas[name]["properties"].pop("made", None)
    schemas["Learned"]["properties"].update(made["properties"])


def _response(error: type[ServiceError]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="InvalidProblem" if error is InvalidError else "Problem")}
    described: dict[str, Any] = {
        "description": (error.__doc__ or error.title).splitlines()[0],
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if error in {SaturatedError, UnavailableError}:
        described["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return described


def _state_errors(path: str, method: str, operation: dict[str, Any]) -> None:
    """List the errors that an operation can answer, by what it takes and does."""
    errors: set[type[ServiceError]] = {ServiceError}
    if SCOPE_OF[f"{method.upper()} {path}"] != "open":
        operation["security"] = [{SECURITY: []}]
        errors |= {UnauthorizedError, ForbiddenError, SaturatedError}
    if path not in {"/livez", "/v2", "/v2/health/live"}:
        errors.add(UnavailableError)
    if operation.get("parameters"):
        errors |= {InvalidError, MalformedError}
    if "{" in path:
        errors.add(NotFoundError)
    if "requestBody" in operation:
        errors |= {MalformedError, TooLargeError, UnsupportedMediaTypeError, InvalidError, SaturatedError}
    if method != "get" and (path.startswith("/v1/streams/") or path.endswith(("/infer", "/learn"))):
        errors |= {ConflictError, SaturatedError, StoreFullError}
    operation["responses"].pop("422", None)
    if is_open(path):
        stated = {str(open_status(error)): {"$ref": f"#/components/responses/{OPEN}"} for error in errors}
    else:
        stated = {str(error.status): {"$ref": f"#/components/responses/{component(error)}"} for error in errors}
    operation["responses"].update(dict(sorted(stated.items())))
