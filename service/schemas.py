"""What requests hold: pydantic describes it in the OpenAPI document, the hot paths check its structure by hand.

Values of rows are not looked at here: the model's own encoding does that, in one pass, and names the bad one.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from service.errors import InvalidError
from service.types import EventKind

ID_PATTERN = r"^[A-Za-z0-9._:\-]{1,128}$"
ID_RULE = "an id is a string of 1 to 128 of A-Z a-z 0-9 . _ : -"
NUMBER_MAX = 2**63 - 1
"""Greatest revision and version that a store can be asked for."""
_ID = re.compile(ID_PATTERN.rstrip("$"))

Id: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Scalar: TypeAlias = float | int | str | bool | None
Row: TypeAlias = list[Scalar] | dict[str, Scalar]


def is_id(text: str) -> bool:
    """Whether ``text`` may name a stream, a row or a request.

    Example:
        >>> is_id("shop-7:2024"), is_id("shop 7"), is_id("")
        (True, False, False)
    """
    return _ID.fullmatch(text) is not None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamConfigBody(_Body):
    """Settings of one stream that override its model's; a field that the model's experts lack is refused."""

    window_rows: int | None = Field(None, ge=1, description="Rows retained for re-adaptation.")
    steps: int | None = Field(None, ge=1, description="Gradient steps of an adaptation.")
    detector: str | None = Field(None, max_length=128, description="Name of a drift detector.")
    alarms_per_1000: float | None = Field(
        None, gt=0, le=1000, allow_inf_nan=False, description="False alarms tolerated per 1,000 batches."
    )


class StreamBody(_Body):
    """Which model a stream is bound to, and its own settings."""

    model: str = Field(min_length=1, max_length=128, description="Name of a served model.")
    config: StreamConfigBody | None = Field(None, description="Left out: the stream keeps the config that it has.")
    metadata: dict[str, JsonValue] | None = Field(None, description="Anything of yours, kept with the stream.")


class PredictBody(_Body):
    """Rows to predict."""

    inputs: list[Row] = Field(
        min_length=1, description="Rows: values in the model's feature order, or objects by name; null is missing."
    )
    ids: list[Id] | None = Field(
        None,
        description="One id a row, each its own: rows and answers are committed under them before the answer, and wait "
        "for labels. Not for the frozen start.",
    )
    interval: float | None = Field(None, gt=0, lt=1, description="Coverage of prediction intervals (regression).")


class FeedbackBody(_Body):
    """One batch of labelled rows, taken whole or not at all."""

    inputs: list[Row] | None = Field(
        None, min_length=1, description="Rows, as for predict; may be left out where all ids wait for their labels."
    )
    targets: list[Scalar | list[float]] = Field(
        min_length=1, description="One label a row: a number, a list of numbers for several outputs, or a class."
    )
    ids: list[Id] | None = Field(None, description="One id a row; a row whose id was learned before is skipped.")
    times: list[str | float] | None = Field(
        None, description="One time a row, kept with it: RFC 3339, or seconds since 1970. Time itself moves by rows."
    )


class LabelBody(_Body):
    """The label of one row that was predicted under an id."""

    id: Id = Field(description="What the row was predicted under.")
    target: Scalar | list[float] = Field(description="As in feedback.")


class LabelsBody(_Body):
    """Late labels, learned as one batch in this order."""

    labels: list[LabelBody] = Field(min_length=1, description="One entry a row.")


class RollbackBody(_Body):
    """Where to go back to: one of both."""

    revision: int | None = Field(None, ge=0, le=NUMBER_MAX, description="A revision of the stream.")
    before: str | float | None = Field(
        None, description="The last revision committed before this time: RFC 3339, or seconds since 1970."
    )


class ActivateBody(_Body):
    """Which version of a model is to be the active one."""

    version: int = Field(ge=1, le=NUMBER_MAX, description="One of the model's versions.")


class WebhookBody(_Body):
    """Where to call, and what for."""

    url: str = Field(min_length=1, max_length=2000, description="https, or http; not an address inside.")
    events: list[EventKind] = Field(min_length=1, description="Kinds of events.")
    secret: str | None = Field(
        None, max_length=128, description="whsec_ and base64 of 24 to 64 bytes; drawn if it is left out."
    )


class Limits(BaseModel):
    """Every limit in force; each is a setting of the same name, and its unit is the end of the name."""

    body_bytes_max: int
    bundle_bytes_max: int
    batch_rows_max: int
    metadata_bytes_max: int
    page_items_max: int
    retained_rows: int
    log_days: int
    pending_days: int
    pending_rows_max: int
    queue_items_max: int
    refusal_seconds: float
    tick_items_max: int
    key_requests_per_second: float
    key_bytes_per_second: float
    tenants_max: int
    hot_streams_max: int
    connections_max: int
    head_bytes_max: int
    head_seconds: float
    body_seconds: float
    body_bytes_per_second_min: int
    reader_seconds: float
    event_followers_max: int
    webhooks_max: int
    snapshot_rows: int
    drain_seconds: float
    shutdown_grace_seconds: float


class ManyPredictItem(PredictBody):
    """Rows to predict by one stream of several."""

    stream: Id = Field(description="Which.")
    model: str | None = Field(None, description="Its model: where there is no such stream, the frozen start answers.")


class ManyPredictBody(_Body):
    """Rows to predict by many streams."""

    items: list[ManyPredictItem] = Field(min_length=1, description="Answered in this order.")


class ManyFeedbackItem(FeedbackBody):
    """One batch of one stream of several."""

    stream: Id = Field(description="Which.")
    model: str | None = Field(None, description="Its model: where there is no such stream, it is created.")


class ManyFeedbackBody(_Body):
    """Batches of many streams, each taken whole or not at all; those of one stream in this order."""

    items: list[ManyFeedbackItem] = Field(min_length=1, description="Answered in this order.")


class UploadOffset(BaseModel):
    """How far an upload has got."""

    upload: str = Field(description="The client's name for it.")
    offset: int = Field(description="All rows before this number, counted from 0, are learned.")


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="Refers to the kind of error in this description.")
    title: str = Field(description="The kind of error in words.")
    status: int = Field(description="The HTTP status once more.")
    detail: str = Field(description="What is wrong, and what to do.")
    instance: str = Field(description="The path that was asked for.")


class FieldProblem(BaseModel):
    """One wrong place in a request; never repeats what was sent."""

    loc: list[str | int] = Field(description="Path from the body's root; parameters start with path, query or header.")
    msg: str = Field(description="What is wrong there.")


class InvalidProblem(Problem):
    """A request that can be read but not taken."""

    errors: list[FieldProblem] = Field(min_length=1, description="Each wrong place.")


class Predict(NamedTuple):
    """A predict request whose structure was checked."""

    inputs: list[Any]
    interval: float | None
    ids: list[str] | None


class Feedback(NamedTuple):
    """A feedback request whose structure was checked; ``times`` are seconds since 1970."""

    inputs: list[Any] | None
    targets: list[Any]
    ids: list[str] | None
    times: list[float] | None


class ManyItem(NamedTuple):
    """One stream's part of a request to many; ``asked`` is checked, or the error that it was refused with."""

    stream: str
    model: str | None
    asked: "Predict | Feedback | InvalidError"


class Rollback(NamedTuple):
    """A roll-back request that was checked; ``before`` in seconds since 1970. One of both is None."""

    revision: int | None
    before: float | None


class WebhookAsked(NamedTuple):
    """A webhook that was asked for, its structure checked."""

    url: str
    events: list[EventKind]
    secret: str | None


class Labels(NamedTuple):
    """A labels request whose structure was checked."""

    ids: list[str]
    targets: list[Any]


def seconds(loc: tuple[str | int, ...], value: Any) -> float:
    """A time as seconds since 1970; text without an offset is UTC.

    Raises:
        InvalidError: It is none; ``loc`` is its place.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise InvalidError.at(loc, "expected RFC 3339 text or seconds since 1970")


def parse_stream(body: Any, metadata_bytes_max: int) -> StreamBody:
    """Check the body of PUT on a stream.

    Raises:
        InvalidError: Names each wrong field.
    """
    try:
        parsed = StreamBody.model_validate(body)
    except ValidationError as error:
        raise InvalidError.from_fields(error.errors(include_url=False, include_input=False)) from None
    if parsed.metadata and len(orjson.dumps(parsed.metadata)) > metadata_bytes_max:
        raise InvalidError.at(("metadata",), f"larger than {metadata_bytes_max} bytes of JSON")
    return parsed


def parse_predict(body: Any, rows_max: int) -> Predict:
    """Check the structure of a predict request.

    Raises:
        InvalidError: Names the wrong field.
    """
    fields = _object(body, PredictBody)
    inputs = _rows(fields, "inputs", rows_max)
    ids = _beside(fields, "ids", len(inputs))
    return Predict(inputs, _interval(fields.get("interval")), _ids(ids))


def parse_feedback(body: Any, rows_max: int) -> Feedback:
    """Check the structure of a feedback request.

    Raises:
        InvalidError: Names the wrong field.
    """
    fields = _object(body, FeedbackBody)
    late = fields.get("inputs") is None and fields.get("ids") is not None
    inputs = None if late else _rows(fields, "inputs", rows_max)
    targets = _rows(fields, "targets", rows_max)
    rows = len(targets if inputs is None else inputs)
    _beside(fields, "targets", rows)
    ids, times = _beside(fields, "ids", rows), _beside(fields, "times", rows)
    return Feedback(inputs, targets, _ids(ids), _times(times))


def parse_many(body: Any, rows_max: int, parse: Callable[[Any, int], Predict | Feedback]) -> list[ManyItem]:
    """Check the structure of a request to many streams; what is wrong within an item stays its own.

    Args:
        body: The decoded body.
        rows_max: Most rows of all items together.
        parse: Checks an item, without its stream and model.

    Raises:
        InvalidError: No list of items, an item without a stream, or too many rows.
    """
    items = _rows(_object(body, ManyFeedbackBody), "items", rows_max)
    found, rows = [], 0
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidError.at(("items", index), "expected an object with a stream and its rows")
        stream, model = item.get("stream"), item.get("model")
        if not isinstance(stream, str) or not is_id(stream):
            raise InvalidError.at(("items", index, "stream"), ID_RULE)
        if model is not None and not isinstance(model, str):
            raise InvalidError.at(("items", index, "model"), "expected the name of a model")
        asked: Predict | Feedback | InvalidError
        try:
            asked = parse({name: value for name, value in item.items() if name not in {"stream", "model"}}, rows_max)
            rows += len(asked.inputs or asked.ids or ())
        except InvalidError as error:
            asked = error
        found.append(ManyItem(stream, model, asked))
    if rows > rows_max:
        raise InvalidError.at(("items",), f"{rows} rows; a request has at most {rows_max}, send several")
    return found


def parse_labels(body: Any, rows_max: int) -> Labels:
    """Check the structure of a labels request.

    Raises:
        InvalidError: Names the wrong field.
    """
    labels = _rows(_object(body, LabelsBody), "labels", rows_max)
    for index, label in enumerate(labels):
        if not isinstance(label, dict) or label.keys() != {"id", "target"}:
            raise InvalidError.at(("labels", index), 'expected an object {"id": …, "target": …}')
        if not isinstance(label["id"], str) or not is_id(label["id"]):
            raise InvalidError.at(("labels", index, "id"), ID_RULE)
    return Labels([label["id"] for label in labels], [label["target"] for label in labels])


def parse_rollback(body: Any) -> Rollback:
    """Check the body of a roll-back.

    Raises:
        InvalidError: Names the wrong field.
    """
    fields = _object(body, RollbackBody)
    revision, before = fields.get("revision"), fields.get("before")
    if (revision is None) == (before is None):
        raise InvalidError.at((), 'send either {"revision": R} or {"before": TIME}')
    if before is not None:
        return Rollback(None, seconds(("before",), before))
    if isinstance(revision, bool) or not isinstance(revision, int) or not 0 <= revision <= NUMBER_MAX:
        raise InvalidError.at(("revision",), "expected a revision, a whole number from 0 on")
    return Rollback(revision, None)


def parse_activate(body: Any) -> int:
    """The version that the body of an activation names.

    Raises:
        InvalidError: Names the wrong field.
    """
    version = _object(body, ActivateBody).get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= NUMBER_MAX:
        raise InvalidError.at(("version",), "expected the number of one of the model's versions")
    return version


def parse_webhook(body: Any) -> WebhookAsked:
    """Check the structure of a webhook.

    Raises:
        InvalidError: Names each wrong field.
    """
    try:
        parsed = WebhookBody.model_validate(body)
    except ValidationError as error:
        raise InvalidError.from_fields(error.errors(include_url=False, include_input=False)) from None
    return WebhookAsked(parsed.url, parsed.events, parsed.secret)


def _object(body: Any, described: type[BaseModel]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidError.at((), "expected a JSON object")
    if not body.keys() <= described.model_fields.keys():
        known = ", ".join(described.model_fields)
        unknown = next(name for name in body if name not in described.model_fields)
        raise InvalidError.at((unknown[:64],), f"unknown field; this route takes {known}")
    return body


def _rows(fields: dict[str, Any], name: str, rows_max: int) -> list[Any]:
    rows = fields.get(name)
    if rows is None:
        raise InvalidError.at((name,), "missing; send a list with one entry a row")
    if not isinstance(rows, list):
        raise InvalidError.at((name,), "expected a list with one entry a row")
    if not rows:
        raise InvalidError.at((name,), "empty; send at least one row")
    if len(rows) > rows_max:
        raise InvalidError.at((name,), f"{len(rows)} rows; a batch has at most {rows_max}, send several")
    return rows


def _beside(fields: dict[str, Any], name: str, rows: int) -> list[Any] | None:
    """A list with one entry a row, or nothing."""
    values = fields.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise InvalidError.at((name,), "expected a list")
    if len(values) != rows:
        raise InvalidError.at((name,), f"{len(values)} entries for {rows} rows; send one a row")
    return values


def _interval(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InvalidError.at(("interval",), "expected a coverage between 0 and 1, for instance 0.9")
    return float(value)


def _ids(ids: list[Any] | None) -> list[str] | None:
    for index, value in enumerate(ids or ()):
        if not isinstance(value, str) or not is_id(value):
            raise InvalidError.at(("ids", index), ID_RULE)
    return ids


def _times(times: list[Any] | None) -> list[float] | None:
    return None if times is None else [seconds(("times", index), value) for index, value in enumerate(times)]
