"""Events of streams in the log: the fields for machines, and a sentence for whoever reads along."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from service.store import StoredEvent

_log = structlog.get_logger("acclimate.events")
_QUIET = frozenset({"activate"})
"""One for each stream of a model, all at once: told at level debug."""


def log_event(stream: str, rows_seen: int, event: StoredEvent) -> None:
    """Write the line of a committed event.

    Args:
        stream: Whose it is.
        rows_seen: Rows that the stream had learned with it.
        event: What happened.
    """
    fields: Mapping[str, Any] = {
        "stream": stream,
        "revision": event.revision,
        "rows_seen": rows_seen,
        "detector": event.detector,
        "statistic": event.statistic,
        "threshold": event.threshold,
        "change_row": event.change_row,
        "action": event.action,
        "rows_used": event.rows_used,
        "input": event.feature,
        "message": sentence(stream, rows_seen, event),
    }
    write = _log.debug if event.kind in _QUIET else _log.info
    write(event.kind, **{name: value for name, value in fields.items() if value is not None})


def sentence(stream: str, rows_seen: int, event: StoredEvent) -> str:
    """What happened, in words.

    Example:
        >>> event = StoredEvent(1, 40, 0.0, "drift", "llr_cusum", 9.31, 8.0, 400, "readapt", 12)
        >>> sentence("s1", 412, event)
        'stream s1 drifted: llr_cusum 9.31 > 8 after 412 rows, re-adapted on 12 rows'
    """
    return f"stream {stream} {_TOLD.get(event.kind, _other)(rows_seen, event)}"


def _drift(rows_seen: int, event: StoredEvent) -> str:
    return f"drifted: {_evidence(event)} after {_rows(rows_seen)}{_action(event)}"


def _warning(rows_seen: int, event: StoredEvent) -> str:
    after = f"after {_rows(rows_seen)}"
    if event.feature is None:
        return f"may be drifting: {_evidence(event)} {after}{_action(event)}"
    by = "" if event.shift is None else f" by {_number(event.shift)} of its standard deviations"
    return f"has an input that moved: {event.feature}{by} ({_evidence(event)}) {after}"


def _reset(rows_seen: int, _event: StoredEvent) -> str:
    return f"was reset to the meta-initialization after {_rows(rows_seen)}"


def _activate(_rows_seen: int, event: StoredEvent) -> str:
    return f"went over to another version of its model{_action(event)}"


def _revert(rows_seen: int, event: StoredEvent) -> str:
    if event.action != "initial":
        return f"is served its adapted parameters again after {_rows(rows_seen)}"
    by = "" if event.statistic is None else f", by {_number(event.statistic)} nats a row"
    return f"is served the frozen start after {_rows(rows_seen)}: its adapted parameters do worse{by}"


def _other(rows_seen: int, event: StoredEvent) -> str:
    return f"had the event {event.kind} after {_rows(rows_seen)}{_action(event)}"


_TOLD: Mapping[str, Callable[[int, StoredEvent], str]] = {
    "drift": _drift,
    "warning": _warning,
    "reset": _reset,
    "activate": _activate,
    "revert": _revert,
}


def _evidence(event: StoredEvent) -> str:
    if event.statistic is None or event.threshold is None:
        return str(event.detector)
    past = event.statistic >= event.threshold
    return f"{event.detector} {_number(event.statistic)} {'>' if past else 'of'} {_number(event.threshold)}"


def _action(event: StoredEvent) -> str:
    if event.action is None:
        return ""
    done = "re-adapted" if event.action == "readapt" else f"action {event.action}"
    return f", {done}" if event.rows_used is None else f", {done} on {_rows(event.rows_used)}"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _number(value: float) -> str:
    """Three digits that tell something, and none after the point of large ones."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits before the point
