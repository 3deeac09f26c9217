"""Logs are JSON lines that say what happened, never what was sent."""

import logging
from collections.abc import Iterator
from io import StringIO

import orjson
import pytest
import structlog

from service.logs import configure_logs, with_request
from tests.service.http_case import own_logs, run_async, serving


@pytest.fixture
def logs() -> Iterator[StringIO]:
    """The service's log configuration, undone afterwards."""
    stream = StringIO()
    with own_logs():
        configure_logs("info", stream)
        yield stream


def test_an_event_is_one_json_line_without_the_message_of_its_exception(
    logs: StringIO,
) -> None:
    """Our events and those of libraries alike; of an exception only type and place are kept."""
    try:
        int("s3cr3t")
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error, stream="s1")
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    written = logs.getvalue()
    ours, theirs = (orjson.loads(line) for line in written.splitlines())
    assert (ours["event"], ours["level"], ours["stream"], ours["error"]) == ("failed", "error", "s1", "ValueError")
    assert (theirs["event"], theirs["error"]) == ("Exception in ASGI application", "ValueError")
    assert "test_logs.py" in ours["trace"][-1]
    assert "s3cr3t" not in written


def test_less_severe_events_are_left_out(logs: StringIO) -> None:
    """At level info nothing of debug is written, and libraries only warn."""
    structlog.get_logger().debug("detail")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert not logs.getvalue()


@run_async
async def test_a_request_is_one_event_with_its_id_and_stream() -> None:
    """Route, status, stream and duration are there, values are not, and health checks are left out."""
    async with serving() as (client, _):
        with structlog.testing.capture_logs([with_request]) as events:
            await client.get("/livez")
            await client.get("/v1/streams/s1?x=s3cr3t", headers={"X-Request-Id": "r1"})
    (event,) = events
    assert event.pop("duration_ms") >= 0
    assert event == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/v1/streams/{stream}",
        "status": 404,
        "stream": "s1",
        "request_id": "r1",
    }
