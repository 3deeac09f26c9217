"""Answers: encoded once, by orjson, straight from the service's values."""

from typing import Any

import orjson
from starlette.responses import Response

from service.types import Learned, Predicted
from service.views import learned_body, present

REPLAYED = "Idempotent-Replayed"
"""Header of an answer that was given before."""
OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


def answer(value: Any, status: int = 200) -> Response:
    """``value`` as JSON; dataclasses become objects, times RFC 3339 in UTC."""
    return Response(orjson.dumps(value, option=OPTIONS), status, media_type="application/json")


def page(items: list[Any], next_cursor: str | None) -> Response:
    """A list answer."""
    return answer({"items": items, "next_cursor": next_cursor})


def again(body: bytes, replayed: bool) -> Response:
    """An answer that is kept for repeats."""
    stated = {REPLAYED: "true"} if replayed else None
    return Response(body, 200, stated, media_type="application/json")


def predicted(value: Predicted) -> Response:
    """A predict answer."""
    return answer(predicted_body(value))


def predicted_body(value: Predicted) -> dict[str, Any]:
    """A prediction without the fields that do not apply to the task."""
    stated = {"stream": value.stream, "model": value.model}
    return stated | present(value)


def learned(value: Learned, *, with_predictions: bool) -> Response:
    """A feedback answer."""
    return answer(learned_body(value, with_predictions=with_predictions))
