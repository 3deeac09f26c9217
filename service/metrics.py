"""What the service counts and times, for Prometheus. No label ever holds a name that a client chose."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from service.types import EventKind

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_TYPE = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
PREFIX = "acclimate"

Stated = list[Any]
"""A metric's name, help, type and samples, as JSON carries it from worker to worker."""


Stateds = Sequence[Stated]
"""Those of one worker."""


class Metrics:
    """Those of one process. Thread-safe.

    Attributes:
        requests: Seconds of HTTP requests, by route, method and status.
        predictions: Predicted rows: by adapted parameters, or the frozen start.
        labels: Labelled rows, by what became of them.
        events: Events of streams, by kind.
        learning: CPU seconds of a tick of learning.
        learning_items: Streams that a tick of learning moved.
        commits: Seconds of a commit.
        commit_operations: Operations that a commit held.
        webhook_calls: Calls of webhooks, by their outcome.
    """

    def __init__(self, *, process: bool = True) -> None:
        """``process`` is on for one of several in a process: those of the process itself are its."""
        disable_created_metrics()
        self._registry = registry = CollectorRegistry(auto_describe=False)
        if process:
            ProcessCollector(registry=registry)
            built = Info(f"{PREFIX}_build", "The software that answers.", registry=registry)
            built.info({"version": version(PREFIX)})
        self.requests = self._histogram(
            "http_request", "Time to answer an HTTP request", SECONDS, "route", "method", "code"
        )
        self.predictions = self._counter("predicted_rows", "Rows predicted", "by")
        self.labels = self._counter("labelled_rows", "Rows that came with labels", "outcome")
        self.events = self._counter("events", "Events of streams", "kind")
        for kind in get_args(EventKind):  # from zero on: a rate does not see the step to a series' first value
            self.events.labels(kind)
        self.learning = self._histogram("learning_tick", "CPU time of a tick that learns", SECONDS)
        self.learning_items = Histogram(
            f"{PREFIX}_learning_tick_streams", "Streams that a tick moves.", buckets=ITEMS, registry=registry
        )
        self.commits = self._histogram("commit", "Time until a transaction is on disk", SECONDS)
        self.commit_operations = Histogram(
            f"{PREFIX}_commit_operations", "Operations of a transaction.", buckets=ITEMS, registry=registry
        )
        self.webhook_calls = self._counter("webhook_calls", "Calls of webhooks", "outcome")
        self._request_children: dict[tuple[str, str, int], Any] = {}

    def _counter(self, name: str, help_text: str, label: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", f"{help_text}.", [label], registry=self._registry)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        full = f"{PREFIX}_{name}_duration_seconds"
        return Histogram(full, f"{help_text}, in seconds.", labels, buckets=buckets, registry=self._registry)

    def gauge(self, name: str, help_text: str, values: Callable[[], Mapping[str, float]], label: str) -> None:
        """A figure that is looked up when it is asked for, one for each value of a label."""
        self._registry.register(_LookedUp(f"{PREFIX}_{name}", help_text, values, label))

    def request(self, route: str, method: str, status: int, seconds: float, trace_id: str | None = None) -> None:
        """Count an answered request, and keep its trace as an example of how long such take."""
        key = (route, method, status)
        child = self._request_children.get(key)
        if child is None:
            child = self._request_children[key] = self.requests.labels(route, method, str(status))
        if trace_id is None:
            child.observe(seconds)
        else:
            child.observe(seconds, {"trace_id": trace_id})

    def stated(self) -> list[Stated]:
        """All of them as plain values."""
        return [
            [found.name, found.documentation, found.type, [_stated(sample) for sample in found.samples]]
            for found in self._registry.collect()
        ]


def _stated(sample: Sample) -> list[Any]:
    plain = [sample.name, sample.labels, sample.value]
    example = sample.exemplar
    return plain if example is None else [*plain, [example.labels, example.value, example.timestamp]]


def exposition(groups: Iterable[tuple[Mapping[str, str], Stateds]], *, openmetrics: bool = False) -> bytes:
    """Groups of metrics, each metric in one piece; a group's labels are on its samples.

    Args:
        groups: Labels, and what has them.
        openmetrics: In that format, which has exemplars, and not in Prometheus's own.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gathered(list(groups)))
    return generate_openmetrics(registry) if openmetrics else generate_latest(registry)


class _Gathered(Collector):
    def __init__(self, groups: Sequence[tuple[Mapping[str, str], Stateds]]) -> None:
        self._groups = groups

    def collect(self) -> Iterator[Metric]:
        """Metric by metric."""
        found: dict[str, Metric] = {}
        for own, stated in self._groups:
            for name, help_text, kind, samples in stated:
                metric = found.setdefault(name, Metric(name, help_text, kind))
                for sample, labels, value, *example in samples:
                    exemplar = Exemplar(*example[0]) if example else None
                    metric.add_sample(sample, {**labels, **own}, value, exemplar=exemplar)
        yield from found.values()


class _LookedUp(Collector):
    def __init__(self, name: str, help_text: str, values: Callable[[], Mapping[str, float]], label: str) -> None:
        self._stated = (name, help_text, label)
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """One sample a value."""
        name, help_text, label = self._stated
        metric = Metric(name, f"{help_text}.", "gauge")
        for value, figure in self._values().items():
            metric.add_sample(name, {label: value}, figure)
        yield metric
