"""Rows that a stream has learned, read back from its log."""

from collections.abc import Iterator

from service.payload import rows_of
from service.store import Entry, Store, StreamRecord
from service.types import LearnedRow
from service.views import moment

PAGE_ENTRIES = 16
"""Log entries that are read at once; each may have thousands of rows."""
_KINDS = frozenset({"feedback", "labels"})


def rows_before(store: Store, record: StreamRecord, before: int | None, limit: int) -> list[LearnedRow]:
    """Rows with a number less than ``before`` (all, if left out), latest first, as far back as the log is kept.

    Raises:
        DamagedError: An entry is missing or altered.
    """
    end = record.rows_seen if before is None else min(before, record.rows_seen)
    revision = record.stream_version if end == record.rows_seen else _revision_of(store, record, end - 1)
    found: list[LearnedRow] = []
    while revision > 0 and len(found) < limit:
        page = [
            e for e in store.entries(record, max(revision - PAGE_ENTRIES, 0), PAGE_ENTRIES) if e.revision <= revision
        ]
        if not page:
            break
        for entry in reversed(page):
            if len(found) < limit and entry.kind in _KINDS:
                found.extend(row for row in _rows(entry) if row.row < end)
        revision = page[0].revision - 1
    return found[:limit]


def _revision_of(store: Store, record: StreamRecord, row: int) -> int:
    """The last revision that began with ``row`` or before it; 0 where the log is not kept so far back."""
    low, high = 0, record.stream_version
    while low < high:
        middle = (low + high + 1) // 2
        page = store.entries(record, middle - 1, 1)
        if page and page[0].first_row <= row:
            low = middle
        else:
            high = middle - 1
    return low


def _rows(entry: Entry) -> Iterator[LearnedRow]:
    """Latest first."""
    rows, made = rows_of(entry.payload)
    at = moment(entry.at)
    predictions, std, probability = (made.get(name) for name in ("predictions", "std", "probability"))
    for index in range(len(rows.targets) - 1, -1, -1):
        yield LearnedRow(
            entry.first_row + index,
            entry.revision,
            at,
            rows.inputs[index],
            rows.targets[index],
            predictions and predictions[index],
            std and std[index],
            probability and probability[index],
            None if rows.ids is None else rows.ids[index],
            None if rows.times is None else rows.times[index],
        )
