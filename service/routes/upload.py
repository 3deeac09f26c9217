"""Uploads: how a request becomes one, and its answer, which begins before the body has ended."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models import InputError
from service.arrow import ARROW, arrow_lines
from service.errors import InvalidError, NotFoundError, ServiceError
from service.json_body import declared_type, header, require_type
from service.lines import NDJSON, Body, ndjson_lines
from service.problems import refused
from service.routes.answers import OPTIONS, answer
from service.routes.context import Context, Serving, StreamId, UploadKey
from service.routes.describe import body_of
from service.schemas import ID_PATTERN, ID_RULE, UploadOffset, is_id
from service.types import Event, Learned
from service.uploading import Resume, Taken

router = APIRouter(prefix="/v1", tags=["streams"])
MEDIA_TYPES = (NDJSON, ARROW)
BATCH_ROWS = 32
"""Rows of a batch where ``?batch=`` is left out."""
LINES_MAX = 64
"""Lines that wait for a client that does not read; more become one."""
OFFSET_DIGITS = 18
UPLOAD: list[dict[str, Any]] = [
    {
        "name": "batch",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "default": BATCH_ROWS},
        "description": "Of an upload: rows of a stream that are learned as one batch.",
    },
    {
        "name": "Upload-Id",
        "in": "header",
        "schema": {"type": "string", "pattern": ID_PATTERN},
        "description": "Of an upload: your name for it, under which it can be resumed.",
    },
    {
        "name": "Upload-Offset",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0, "default": 0},
        "description": "Of a resumed upload: number of the body's first row. Rows that were learned are skipped.",
    },
]
"""Parameters of routes that take uploads."""
_LINE = OPTIONS | orjson.OPT_APPEND_NEWLINE


@router.get(
    "/uploads/{upload}", summary="How far an upload to many streams has got", responses={200: {"model": UploadOffset}}
)
async def get_upload(service: Serving, upload: UploadKey) -> Response:
    """Rows below ``offset`` are learned; later ones may be, and are skipped where they are sent again."""
    return await _offset(service, None, upload)


@router.get(
    "/streams/{stream}/uploads/{upload}", summary="How far an upload has got", responses={200: {"model": UploadOffset}}
)
async def get_stream_upload(service: Serving, stream: StreamId, upload: UploadKey) -> Response:
    """Rows below ``offset`` are learned; resume with the row of that number."""
    return await _offset(service, stream, upload)


async def _offset(service: Context, stream: str | None, upload: str) -> Response:
    offset = await service.uploads.offset(upload, stream)
    if offset is None:
        raise NotFoundError(f"Nothing of upload {upload} is known: no batch of it was learned, or long ago.")
    return answer({"upload": upload, "offset": offset})


async def take_upload(service: Context, stream: str | None, request: Request) -> Response:
    """Begin an upload to a stream, or to those that its rows name; return at its first commit or its end.

    Raises:
        ServiceError, InputError: It ended before anything was learned.
    """
    batch_rows, resume = _batch_rows(request, service.settings.batch_rows_max), _resume(request)
    body = Body(request.receive, service.settings.body_bytes_max, lambda: service.draining)
    if declared_type(request) == ARROW:
        require_type(request, ARROW)
        names = await _features(service, stream)

        def rows(first: int) -> Any:
            return arrow_lines(body, first, names)
    else:
        require_type(request, NDJSON)

        def rows(first: int) -> Any:
            return ndjson_lines(body, first, many=stream is None)

    outbox = _Outbox(one=stream is not None)
    run = asyncio.create_task(service.uploads.run(stream, rows, batch_rows, resume, outbox.put))
    run.add_done_callback(lambda _: outbox.wake.set())
    try:
        await outbox.wake.wait()
        if run.done() and not outbox.lines:
            run.result()
    except BaseException:
        run.cancel()
        raise
    return UploadAnswer(run, outbox, body)


async def _features(service: Context, stream: str | None) -> list[str]:
    if stream is None:
        raise InvalidError.at(("headers", "content-type"), f"many streams are uploaded as {NDJSON}")
    model = (await service.streams.get(stream)).model
    return [feature.name for feature in service.streams.model(model).features]


def _batch_rows(request: Request, rows_max: int) -> int:
    text = request.query_params.get("batch", str(BATCH_ROWS))
    if not text.isdecimal() or not 1 <= int(text[:OFFSET_DIGITS]) <= rows_max:
        raise InvalidError.at(("query", "batch"), f"expected a number of rows from 1 to {rows_max}")
    if "return" in request.query_params:
        raise InvalidError.at(("query", "return"), "an upload does not answer predictions")
    return int(text)


def _resume(request: Request) -> Resume | None:
    upload, offset = header(request.scope, b"upload-id"), header(request.scope, b"upload-offset")
    if not upload:
        if offset:
            raise InvalidError.at(("header", "upload-offset"), "means nothing without an Upload-Id")
        return None
    if not is_id(upload):
        raise InvalidError.at(("header", "upload-id"), ID_RULE)
    if offset and not (offset.isdecimal() and len(offset) <= OFFSET_DIGITS):
        raise InvalidError.at(("header", "upload-offset"), "expected the number of the body's first row")
    return Resume(upload, int(offset or 0))


@dataclass(slots=True)
class _Tally:
    """What several batches came to; means are over their rows."""

    offset: int = 0
    batches: int = 0
    accepted: int = 0
    duplicates: int = 0
    loss: float | None = None
    score: float | None = None
    drift: Event | None = None

    def add(self, other: "_Tally") -> None:
        """Count further batches; ``drift`` is the latest, which is that of ``self`` if it has one."""
        rows = self.accepted + other.accepted
        self.loss = _mean(self.loss, self.accepted, other.loss, other.accepted, rows)
        self.score = _mean(self.score, self.accepted, other.score, other.accepted, rows)
        self.drift = self.drift or other.drift
        self.offset = max(self.offset, other.offset)
        self.batches += other.batches
        self.accepted, self.duplicates = rows, self.duplicates + other.duplicates


def _mean(a: float | None, a_rows: int, b: float | None, b_rows: int, rows: int) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return (a * a_rows + b * b_rows) / rows


class _Outbox:
    """Lines that wait to be sent.

    Attributes:
        lines: What is known of each.
        total: Of all batches so far.
        wake: Set when there is something to do.
    """

    def __init__(self, *, one: bool) -> None:
        self._one = one
        self.lines: list[tuple[_Tally, Learned]] = []
        self.total = _Tally()
        self.wake = asyncio.Event()

    def put(self, taken: Taken) -> None:
        """Another batch is committed."""
        learned = taken.learned
        tally = _Tally(
            taken.offset, 1, learned.accepted, learned.duplicates, learned.loss, learned.score, learned.drift
        )
        self.total.add(tally)
        self.total.drift = learned.drift or self.total.drift
        if len(self.lines) >= LINES_MAX:
            for earlier, _ in self.lines:
                tally.add(earlier)
            self.lines.clear()
        self.lines.append((tally, learned))
        self.wake.set()

    def take(self) -> bytes:
        """All lines, encoded."""
        text = b"".join(orjson.dumps(self._stated(*line), option=_LINE) for line in self.lines)
        self.lines.clear()
        return text

    def _stated(self, tally: _Tally, last: Learned) -> dict[str, Any]:
        """A line; what only its last batch can say is left out where others are in it and may be of other streams."""
        stated = asdict(tally)
        if self._one or tally.batches == 1:
            stated |= {
                "stream": last.stream,
                "rows_seen": last.rows_seen,
                "model_version": last.model_version,
                "stream_version": last.stream_version,
                "state": last.state,
            }
        return stated


def upload_body(body: type[BaseModel], media_types: Sequence[str]) -> dict[str, Any]:
    """The operation's request body: JSON, or an upload."""
    described = body_of(body)
    content = described["requestBody"]["content"]
    content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return described


class UploadAnswer(Response):
    """NDJSON: a line per committed batch while the upload runs, then one of totals.

    A client that does not read is not waited for: what was told meanwhile becomes one line.
    """

    media_type = NDJSON

    def __init__(self, run: "asyncio.Task[int]", outbox: _Outbox, body: Body) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._run = run
        self._outbox = outbox
        self._body = body
        if not body.ended:
            self.headers["connection"] = "close"  # an upload that ends early leaves bytes that nobody will read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until the upload has ended."""
        del receive
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while not self._run.done() or self._outbox.lines:
                self._outbox.wake.clear()
                if self._outbox.lines:
                    await send({"type": "http.response.body", "body": self._outbox.take(), "more_body": True})
                elif not self._run.done():
                    await self._outbox.wake.wait()
            total = self._total(scope)
            await send({"type": "http.response.body", "body": orjson.dumps(total, option=_LINE), "more_body": True})
            await self._body.discard()
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._run.cancel()

    def _total(self, scope: Scope) -> dict[str, Any]:
        total = self._outbox.total
        error = self._run.exception()
        if error is None:
            total.offset = self._run.result()
            return {"done": True, **asdict(total)}
        if not isinstance(error, ServiceError | InputError):
            raise error
        return {"done": False, **asdict(total), "error": refused(error, scope)}
