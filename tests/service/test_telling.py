"""An event of a stream is a line of the log that a person can read."""

import pytest
import structlog

from service.store import StoredEvent
from service.telling import sentence
from tests.service.http_case import run_async
from tests.service.streams_case import all_events, batches, learn, opened


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            StoredEvent(1, 40, 0.0, "drift", "llr_cusum", 9.31, 8.0, 400, "readapt", 12),
            "stream s1 drifted: llr_cusum 9.31 > 8 after 412 rows, re-adapted on 12 rows",
        ),
        (
            StoredEvent(1, 40, 0.0, "drift", "kswin", 0.553, 0.549, None, "readapt", 1),
            "stream s1 drifted: kswin 0.553 > 0.549 after 412 rows, re-adapted on 1 row",
        ),
        (
            StoredEvent(1, 40, 0.0, "warning", "llr_cusum", 5.02, 8.0),
            "stream s1 may be drifting: llr_cusum 5.02 of 8 after 412 rows",
        ),
        (
            StoredEvent(1, 40, 0.0, "warning", "inputs", 31.2, 24.0, feature="x", shift=-2.0),
            "stream s1 has an input that moved: x by -2 of its standard deviations (inputs 31.2 > 24) after 412 rows",
        ),
        (StoredEvent(1, 40, 0.0, "reset"), "stream s1 was reset to the meta-initialization after 412 rows"),
        (
            StoredEvent(1, 40, 0.0, "activate", rows_used=300, action="readapt"),
            "stream s1 went over to another version of its model, re-adapted on 300 rows",
        ),
        (
            StoredEvent(1, 40, 0.0, "revert", None, 0.2104, 0.1, action="initial"),
            "stream s1 is served the frozen start after 412 rows: its adapted parameters do worse, by 0.21 nats a row",
        ),
        (
            StoredEvent(1, 40, 0.0, "revert", None, -0.3, 0.0, action="adapted"),
            "stream s1 is served its adapted parameters again after 412 rows",
        ),
        (StoredEvent(1, 40, 0.0, "rollback"), "stream s1 had the event rollback after 412 rows"),
    ],
    ids=lambda value: value.kind if isinstance(value, StoredEvent) else "",
)
def test_each_kind_of_event_is_a_sentence(event: StoredEvent, told: str) -> None:
    """It names the stream, the evidence and what was done."""
    assert sentence("s1", 412, event) == told


@run_async
async def test_an_alarm_is_one_line_of_the_log() -> None:
    """With what the event says as fields, the sentence beside them, and no rows or labels."""
    with structlog.testing.capture_logs() as lines:
        async with opened() as streams:
            await streams.put("s", "reg", None, None)
            answers = await learn(streams, "s", batches(40, 2, jump=30))
            events = await all_events(streams, "s")
    drifts = [line for line in lines if line["event"] == "drift"]
    told = [event for event in events if event.kind == "drift"]
    assert len(drifts) == len(told) > 0
    line, event = drifts[0], told[0]
    rows = next(each.rows_seen for each in answers if each.drift is not None)
    for name in ("stream", "revision", "detector", "statistic", "threshold", "change_row", "rows_used"):
        assert line[name] == getattr(event, name)
    assert (line["log_level"], line["rows_seen"]) == ("info", rows)
    assert line["message"].startswith("stream s drifted: llr_cusum ")
    assert line["message"].endswith(f" > 8 after {rows} rows, re-adapted on {event.rows_used} rows")
    allowed = {"event", "log_level", "message", "rows_seen", *event.__dataclass_fields__}
    assert set(line) <= allowed
