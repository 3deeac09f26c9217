"""Takes a contender through a table, test then train, several streams in each call.

Rows stand in global time order. Row i is predicted from its stream's state then; its label reaches the learner after
``delay`` further rows of the whole file, with 0 before the next row. A batch is N consecutive rows of one stream: all
of them are predicted before any is learned, and the learner gets them together when the last label has arrived. The
last rows' labels arrive after the end of the file.

Streams do not influence each other, so several of them move in one call: what matters is the order of events within
each stream, and that is fixed by the rows' places in the file.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models.tasks.table import IntArray, Table

LANES = 64
"""Most streams that move in one call."""
PREDICT_ROWS = 256
"""Most rows of one stream that are predicted in one call."""
Progress = Callable[[int], None]
"""Told the number of rows learned so far."""


class Event(NamedTuple):
    """Something that happens to a stream: rows (indices into the table) are predicted, or learned as one batch.

    Attributes:
        learn: Whether the rows are learned.
        predict: Whether the rows are predicted; together with ``learn``: from the state before learning.
        rows: Indices into the table, in time order.
    """

    learn: bool
    predict: bool
    rows: IntArray


class Contender(Protocol):
    """What can be run test-then-train: something that keeps a state for each stream."""

    def open(self, stream: int) -> int:
        """Start the table's stream ``stream``; returns a handle."""
        ...

    def close(self, handle: int) -> None:
        """Forget a stream that has ended."""
        ...

    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        """Predict rows of different streams from their present states."""
        ...

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        """Learn one batch each of different streams; predict its rows before, where the event says so."""
        ...


def run(
    contender: Contender,
    table: Table,
    *,
    batch: int = 1,
    delay: int = 0,
    progress: Progress | None = None,
    lanes: int = LANES,
) -> float:
    """Take a contender through a table; returns its CPU seconds."""
    if batch < 1 or delay < 0:
        raise ValueError(f"batch {batch} must be at least 1 and delay {delay} at least 0")
    rows_of = [np.flatnonzero(table.streams == code) for code in range(len(table.stream_names))]
    waiting = sorted(range(len(rows_of)), key=lambda code: len(rows_of[code]))  # the longest stream starts first
    active: list[tuple[int, Iterator[Event]]] = []
    learned = 0
    spent = 0.0
    while waiting or active:
        while waiting and len(active) < lanes:
            code = waiting.pop()
            active.append((contender.open(code), events(rows_of[code], batch, delay)))
        due: list[tuple[int, Event]] = []
        still = []
        for handle, upcoming in active:
            event = next(upcoming, None)
            if event is None:
                contender.close(handle)
                continue
            due.append((handle, event))
            still.append((handle, upcoming))
        active = still
        began = time.process_time()
        predicting = [(handle, event.rows) for handle, event in due if not event.learn]
        if predicting:
            contender.predict(predicting)
        learning = [(handle, event) for handle, event in due if event.learn]
        if learning:
            contender.learn(learning)
        spent += time.process_time() - began
        learned += sum(len(event.rows) for _, event in learning)
        if progress is not None:
            progress(learned)
    return spent


def run_in_order(
    contender: Contender, table: Table, *, batch: int = 1, delay: int = 0, progress: Progress | None = None
) -> float:
    """As ``run``, all streams in the file's own order: for a contender whose streams share what they learn.

    A row is predicted at its place in the file; its batch is learned when the last label has arrived.
    """
    if batch < 1 or delay < 0:
        raise ValueError(f"batch {batch} must be at least 1 and delay {delay} at least 0")
    handles = [contender.open(code) for code in range(len(table.stream_names))]
    learned = 0
    spent = 0.0
    for stream, event in events_in_order(table.streams, batch, delay):
        began = time.process_time()
        if event.learn:
            contender.learn([(handles[stream], event)])
            learned += len(event.rows)
        else:
            contender.predict([(handles[stream], event.rows)])
        spent += time.process_time() - began
        if progress is not None and event.learn and (learned % PREDICT_ROWS < batch or learned == table.rows):
            progress(learned)
    for handle in handles:
        contender.close(handle)
    return spent


def events_in_order(streams: IntArray, batch: int, delay: int) -> Iterator[tuple[int, Event]]:
    """What happens to all streams, in the order of the file: (stream, event).

    Args:
        streams: (rows,) stream of each row.
        batch: Rows of a batch: consecutive rows of one stream.
        delay: Rows of the file after which a label is known.
    """
    batches = []
    for code in range(int(streams.max()) + 1):
        rows = np.flatnonzero(streams == code)
        batches += [(code, rows[start : start + batch]) for start in range(0, len(rows), batch)]
    batches.sort(key=lambda each: int(each[1][-1]))
    due = 0
    for row, stream in enumerate(streams.tolist()):
        while due < len(batches) and batches[due][1][-1] + delay < row:
            yield batches[due][0], Event(learn=True, predict=False, rows=batches[due][1])
            due += 1
        yield stream, Event(learn=False, predict=True, rows=np.array([row]))
    yield from ((code, Event(learn=True, predict=False, rows=rows)) for code, rows in batches[due:])


def events(rows: IntArray, batch: int, delay: int) -> Iterator[Event]:
    """What happens to one stream, in order.

    Args:
        rows: The stream's rows: ascending indices into the file.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is known.
    """
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    if delay == 0:
        yield from (Event(learn=True, predict=True, rows=each) for each in batches)
        return
    learned = 0
    group: list[int] = []
    for row in rows:
        due = learned
        while due < len(batches) and batches[due][-1] + delay < row:
            due += 1
        if group and (due > learned or len(group) == PREDICT_ROWS):
            yield Event(learn=False, predict=True, rows=np.array(group))
            group = []
        yield from (Event(learn=True, predict=False, rows=each) for each in batches[learned:due])
        learned = due
        group.append(int(row))
    if group:
        yield Event(learn=False, predict=True, rows=np.array(group))
    yield from (Event(learn=True, predict=False, rows=each) for each in batches[learned:])
