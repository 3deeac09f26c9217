"""Logs: one JSON line an event, on standard error, without row contents."""

import logging
import sys
import traceback
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered."""
_FRAMES_MAX = 12


def configure_logs(level: str, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send structlog's and the standard library's events to ``stream``, standard error by default, as JSON lines.

    ``worker`` is said with each of them, where there are several.
    """
    stream = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        with_request,
        *([] if worker is None else [_of_worker(worker)]),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_values,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_encode)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def with_request(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Say to which request an event belongs, if to one."""
    request_id = REQUEST_ID.get()
    if request_id:
        event["request_id"] = request_id
    return event


def _of_worker(worker: int) -> Processor:
    def said(_logger: Any, _name: str, event: EventDict) -> EventDict:
        event["worker"] = worker
        return event

    return said


def without_values(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and where it came from: its message may repeat what a client sent."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
        event["trace"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _encode(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
