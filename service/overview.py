"""What goes on, at a glance: how many streams are in which state, and how much was done lately, sample by sample."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any

from service.metrics import PREFIX, SECONDS, Metrics, Stateds
from service.store import Store, Tally
from service.threads import Threads
from service.types import Event, ModelUse, Overview, Sample
from service.views import event_of, moment

SAMPLE_SECONDS = 5
"""Time between samples, which lie on multiples of it, so that those of several workers add up."""
SAMPLES_MAX = 720
"""Samples that are kept: an hour."""
EVENTS = 50
"""Latest events that are shown."""
TALLY_SECONDS = 2.0
"""How old the count of streams may be..."""
TALLY_SHARE = 20.0
"""...or so many times as old as the counting took, so that it never takes more than a twentieth of a core."""

_FIGURES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "learned": ("labelled_rows_total", {"outcome": "learned"}),
    "predicted": ("predicted_rows_total", {}),
    "drifts": ("events_total", {"kind": "drift"}),
    "warnings": ("events_total", {"kind": "warning"}),
}
_TIMES = {"learning": "learning_tick_duration_seconds_bucket", "commits": "commit_duration_seconds_bucket"}


class Trace:
    """What a process has done in each interval, of the last ``SAMPLES_MAX``.

    Args:
        stated: Tells the metrics as they are.
    """

    def __init__(self, stated: Callable[[], Stateds]) -> None:
        self._stated = stated
        self._before = _totals(stated())
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def take(self, at: float) -> None:
        """Keep what was done since the last sample, as that of the interval that ends at ``at`` (epoch seconds)."""
        now, before = _totals(self._stated()), self._before
        self._before = now
        done = {name: [after - earlier for after, earlier in zip(now[name], before[name], strict=True)] for name in now}
        figures = {name: done[name][0] for name in _FIGURES}
        times = {name: _apart(done[name]) for name in _TIMES}
        self._samples.append(_sample(round(at / SAMPLE_SECONDS) * SAMPLE_SECONDS, figures, times))

    def since(self, after: float) -> list[Sample]:
        """Those that end after a time (epoch seconds), oldest first."""
        return [sample for sample in self._samples if sample.at > after]


class Watch:
    """Takes samples while the service runs, and counts streams when it is asked.

    Args:
        store: Where the streams are.
        metrics: Those of this process.
        hot: How many streams are in memory.
        threads: Where the store is read.
        clock: Epoch seconds.
    """

    def __init__(
        self, store: Store, metrics: Metrics, hot: Callable[[], int], *, threads: Threads, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._hot = hot
        self._threads = threads
        self._clock = clock
        self.trace = Trace(metrics.stated)
        self._tally: list[Tally] = []
        self._fresh_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take samples."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Take no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS - self._clock() % SAMPLE_SECONDS)
            self.trace.take(self._clock())

    async def overview(self, after: float = 0.0) -> Overview:
        """What there is now, with the samples that end after a time (epoch seconds)."""
        tally, events = await self._threads.load(self._read)
        states: dict[str, int] = {}
        uses: dict[tuple[str, int], int] = {}
        for model, version, state, streams in tally:
            states[state] = states.get(state, 0) + streams
            uses[model, version] = uses.get((model, version), 0) + streams
        return Overview(
            moment(self._clock()),
            states,
            self._hot(),
            [ModelUse(model, version, streams) for (model, version), streams in sorted(uses.items())],
            SAMPLE_SECONDS,
            list(SECONDS),
            self.trace.since(after),
            events,
        )

    def _read(self) -> tuple[list[Tally], list[Event]]:
        store = self._store
        began = time.perf_counter()
        if began >= self._fresh_until:
            self._tally = store.tally()
            ended = time.perf_counter()
            self._fresh_until = ended + max(TALLY_SECONDS, TALLY_SHARE * (ended - began))
        latest = store.all_events(max(store.last_event() - EVENTS, 0), EVENTS)
        return self._tally, [event_of(stream, event) for stream, event in reversed(latest)]


def overview_of(stated: Mapping[str, Any]) -> Overview:
    """An overview out of its JSON."""
    return Overview(
        **{
            **stated,
            "at": datetime.fromisoformat(stated["at"]),
            "models": [ModelUse(**use) for use in stated["models"]],
            "samples": [Sample(**sample) for sample in stated["samples"]],
            "events": [Event(**{**event, "at": datetime.fromisoformat(event["at"])}) for event in stated["events"]],
        }
    )


def merged(parts: Sequence[Overview]) -> Overview:
    """Those of several workers as one."""
    states: dict[str, int] = {}
    uses: dict[tuple[str, int], int] = {}
    samples: dict[float, list[Sample]] = {}
    for part in parts:
        for state, streams in part.states.items():
            states[state] = states.get(state, 0) + streams
        for use in part.models:
            uses[use.model, use.version] = uses.get((use.model, use.version), 0) + use.streams
        for sample in part.samples:
            samples.setdefault(sample.at, []).append(sample)
    events = sorted((event for part in parts for event in part.events), key=lambda event: event.at, reverse=True)
    return Overview(
        max(part.at for part in parts),
        states,
        sum(part.hot for part in parts),
        [ModelUse(model, version, streams) for (model, version), streams in sorted(uses.items())],
        SAMPLE_SECONDS,
        list(SECONDS),
        [_added(samples[at]) for at in sorted(samples)],
        events[:EVENTS],
    )


def _added(samples: Sequence[Sample]) -> Sample:
    figures = {name: sum(getattr(sample, name) for sample in samples) for name in _FIGURES}
    times = {name: list(map(sum, zip(*(getattr(each, name) for each in samples), strict=True))) for name in _TIMES}
    return _sample(samples[0].at, figures, times)


def _sample(at: float, figures: Mapping[str, int], times: Mapping[str, list[int]]) -> Sample:
    """A sample by the names of its fields."""
    return Sample(
        at,
        figures["learned"],
        figures["predicted"],
        figures["drifts"],
        figures["warnings"],
        times["learning"],
        times["commits"],
    )


def _totals(stated: Stateds) -> dict[str, list[int]]:
    """Of the metrics, those that samples are made of: a number, or those of a histogram's buckets."""
    values: dict[str, list[tuple[Mapping[str, str], int]]] = {}
    for _, _, _, samples in stated:
        for name, labels, value, *_ in samples:  # one may have an exemplar
            values.setdefault(name, []).append((labels, int(value)))
    found = {
        name: [sum(_matching(values.get(f"{PREFIX}_{metric}", ()), wanted))]
        for name, (metric, wanted) in _FIGURES.items()
    }
    for name, metric in _TIMES.items():
        buckets = [value for _, value in values.get(f"{PREFIX}_{metric}", ())]
        found[name] = buckets or [0] * (len(SECONDS) + 1)
    return found


def _matching(values: Iterable[tuple[Mapping[str, str], int]], wanted: Mapping[str, str]) -> Iterable[int]:
    return (value for labels, value in values if wanted.items() <= labels.items())


def _apart(cumulative: Sequence[int]) -> list[int]:
    """How many fell into each bucket, from how many fell into it or one before."""
    return [cumulative[0], *(after - before for before, after in pairwise(cumulative))]
