"""Answers: encoded once, by orjson, straight from the service's values."""

from dataclasses import fields
from typing import Any

import orjson
from starlette.responses import Response

from service.types import Labelled, Learned, Made, Predicted

_BESIDE = {Predicted: "state", Learned: "made", Labelled: "made"}
"""What is not part of the plain answer."""
_NAMES = {
    kind: tuple(field.name for field in fields(kind) if field.name != _BESIDE.get(kind))
    for kind in (Predicted, Made, Learned, Labelled)
}
OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


def answer(value: Any, status: int = 200) -> Response:
    """``value`` as JSON; dataclasses become objects, times RFC 3339 in UTC."""
    return Response(orjson.dumps(value, option=OPTIONS), status, media_type="application/json")


def page(items: list[Any], next_cursor: str | None) -> Response:
    """A list answer."""
    return answer({"items": items, "next_cursor": next_cursor})


def predicted(value: Predicted) -> Response:
    """A predict answer."""
    return answer(predicted_body(value))


def predicted_body(value: Predicted) -> dict[str, Any]:
    """A prediction without the fields that do not apply to the task."""
    stated = {"stream": value.stream, "model": value.model}
    return stated | _present(value)


def learned(value: Learned, *, with_predictions: bool) -> Response:
    """A feedback answer."""
    return answer(learned_body(value, with_predictions=with_predictions))


def learned_body(value: Learned, *, with_predictions: bool) -> dict[str, Any]:
    """What was learned, with the predictions made before learning if they were asked for."""
    body = {name: getattr(value, name) for name in _NAMES[type(value)]}
    if with_predictions and value.made is not None:
        body |= _present(value.made)
    return body


def _present(value: Predicted | Made) -> dict[str, Any]:
    return {name: item for name in _NAMES[type(value)] if (item := getattr(value, name)) is not None}
