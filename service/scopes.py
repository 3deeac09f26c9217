"""What each route asks of a key. A route that is not here is answered to nobody but those with any key at all."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Literal, TypeAlias

from service.keys import Scope

Asked: TypeAlias = Scope | Literal["open", "metrics"]
"""``open`` is answered to everybody; ``metrics`` too, where the setting says so, and else to any key."""

SCOPE_OF: Mapping[str, Asked] = MappingProxyType(
    {
        "GET /livez": "open",
        "GET /readyz": "open",
        "GET /docs": "open",
        "GET /docs/oauth2-redirect": "open",
        "GET /openapi.json": "open",
        "GET /v2/health/live": "open",
        "GET /v2/health/ready": "open",
        "GET /": "open",
        "GET /dashboard/{file}": "open",
        "HEAD /": "open",
        "HEAD /dashboard/{file}": "open",
        "GET /metrics": "metrics",
        "GET /v1/overview": "predict",
        "GET /v1/limits": "predict",
        "GET /v1/models": "predict",
        "GET /v1/models/{model}": "predict",
        "POST /v1/models/{model}/predict": "predict",
        "POST /v1/models/{model}/versions": "admin",
        "POST /v1/models/{model}/activate": "admin",
        "DELETE /v1/models/{model}": "admin",
        "GET /v1/streams": "predict",
        "GET /v1/streams/{stream}": "predict",
        "PUT /v1/streams/{stream}": "feedback",
        "DELETE /v1/streams/{stream}": "admin",
        "POST /v1/streams/{stream}/predict": "predict",
        "POST /v1/streams/{stream}/feedback": "feedback",
        "POST /v1/streams/{stream}/labels": "feedback",
        "POST /v1/streams/{stream}/reset": "admin",
        "POST /v1/streams/{stream}/rollback": "admin",
        "GET /v1/streams/{stream}/events": "predict",
        "GET /v1/streams/{stream}/revisions": "predict",
        "GET /v1/streams/{stream}/rows": "predict",
        "GET /v1/streams/{stream}/snapshot": "admin",
        "PUT /v1/streams/{stream}/snapshot": "admin",
        "GET /v1/streams/{stream}/uploads/{upload}": "feedback",
        "GET /v1/uploads/{upload}": "feedback",
        "POST /v1/predict": "predict",
        "POST /v1/feedback": "feedback",
        "POST /v1/webhooks": "admin",
        "GET /v1/webhooks": "admin",
        "GET /v1/webhooks/{webhook}": "admin",
        "DELETE /v1/webhooks/{webhook}": "admin",
        "GET /v2": "predict",
        "GET /v2/models": "predict",
        "GET /v2/models/stats": "predict",
        "GET /v2/models/{model}": "predict",
        "GET /v2/models/{model}/ready": "predict",
        "GET /v2/models/{model}/stats": "predict",
        "GET /v2/models/{model}/versions/{version}": "predict",
        "GET /v2/models/{model}/versions/{version}/ready": "predict",
        "GET /v2/models/{model}/versions/{version}/stats": "predict",
        "POST /v2/models/{model}/infer": "predict",
        "POST /v2/models/{model}/versions/{version}/infer": "predict",
        "POST /v2/models/{model}/learn": "feedback",
        "POST /v2/repository/index": "predict",
    }
)
"""By method and path, as the OpenAPI description has them."""


def scope_of(method: str, path: str) -> Asked:
    """What a request asks of a key; of one that no route takes, any key.

    Example:
        >>> scope_of("POST", "/v1/streams/s1/feedback"), scope_of("GET", "/livez"), scope_of("GET", "/nosuch")
        ('feedback', 'open', 'predict')
    """
    parts = path.split("/")
    for template, asked in _templates().get((method, len(parts)), ()):
        if all(stated in (None, part) for stated, part in zip(template, parts, strict=True)):
            return asked
    return "predict"


@cache
def _templates() -> dict[tuple[str, int], list[tuple[tuple[str | None, ...], Asked]]]:
    """By method and number of parts: parts with None for a parameter; those without parameters first."""
    found: dict[tuple[str, int], list[tuple[tuple[str | None, ...], Asked]]] = {}
    for route, asked in SCOPE_OF.items():
        method, _, path = route.partition(" ")
        parts = tuple(None if part.startswith("{") else part for part in path.split("/"))
        found.setdefault((method, len(parts)), []).append((parts, asked))
    for templates in found.values():
        templates.sort(key=lambda template: template[0].count(None))
    return found
