"""Traces by OpenTelemetry; what they are for and who asks for them is in ``service.tracing``.

Spans below a request's are made when they have ended, or all at once for a tick: then the hot paths have only told
times. The SDK's own variables (``OTEL_…``: sampler, headers, service name) count as everywhere.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from threading import Timer
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service.json_body import header
from service.tracing import CURRENT

SPANS_MAX = 1_000
"""Spans of one request; a long upload has no more."""
CLOSE_SECONDS = 2.0
"""How long the last spans are tried to be sent."""
ATTRIBUTE = "traced"
_SERVER_ERROR = 500
_CONTEXT_HEADERS = ("traceparent", "tracestate")


def exporting(endpoint: str) -> "OtelTracer":
    """Traces that go to a collector."""
    exporter = _Exporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracer(provider, exporter.shutdown)


class _Exporter(OTLPSpanExporter):
    """One that may be told more than once to give up."""

    _over = False

    def shutdown(self) -> None:
        """Try no more."""
        if not self._over:
            self._over = True
            super().shutdown()  # type: ignore[no-untyped-call]


def _resource() -> Resource:
    """Who sends them; the standard variables come first."""
    attributes = {"service.version": version("acclimate")}
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes["service.name"] = "acclimate"
    return Resource.create(attributes)


@dataclass(slots=True)
class Budget:
    """How many more spans a request may have, and whether it would have had more."""

    left: int = SPANS_MAX
    exceeded: bool = False

    def take(self, spans: int) -> bool:
        """Whether so many more fit."""
        if self.left < spans:
            self.exceeded = True
            return False
        self.left -= spans
        return True


class Place(NamedTuple):
    """A span that others are put below, and the budget of its request."""

    span: Span
    budget: Budget


class OtelTraced:
    """A request that is traced.

    Attributes:
        id: Of its trace.
    """

    def __init__(self, span: Span, method: str, budget: Budget) -> None:
        self.id = format_trace_id(span.get_span_context().trace_id)
        self._span = span
        self._method = method
        self._budget = budget

    def end(self, route: str, status: int, stream: str | None) -> None:
        """State what it was, never what was in it."""
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if stream:
            self._span.set_attribute("acclimate.stream", stream)
        if self._budget.exceeded:
            self._span.set_attributes({"acclimate.spans_left_out": True})
        if status >= _SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class OtelTracer:
    """Makes the spans.

    Args:
        provider: The SDK's; closed by ``close``.
        give_up: Ends trying to send.
    """

    def __init__(self, provider: TracerProvider, give_up: Callable[[], None] = lambda: None) -> None:
        self._provider = provider
        self._give_up = give_up
        self._tracer = provider.get_tracer("acclimate", version("acclimate"))
        self._propagator = TraceContextTextMapPropagator()

    def request(self, scope: Scope, request_id: str) -> OtelTraced | None:
        """A request's span, below the client's if it has sent a ``traceparent``; ``None`` if it is not sampled."""
        method: str = scope["method"]
        given = {name: found for name in _CONTEXT_HEADERS if (found := header(scope, name.encode()))}
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(given) if given else None,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "acclimate.request_id": request_id},
        )
        if not span.is_recording():
            return None
        budget = Budget()
        CURRENT.set((Place(span, budget),))
        return OtelTraced(span, method, budget)

    def stages(self, queue: str, work: str) -> "OtelStages":
        """For a queue."""
        return OtelStages(self, queue, work)

    def close(self) -> None:
        """Send what has not been sent, or give up: a collector that is not there must not hold up the end."""
        limit = Timer(CLOSE_SECONDS, self._give_up)
        limit.daemon = True
        limit.start()
        try:
            self._provider.shutdown()
        finally:
            limit.cancel()

    def begin(self, name: str, place: Place, began_ns: int, attributes: Mapping[str, Any] | None = None) -> Span:
        """A span below another."""
        return self._tracer.start_span(
            name, context=set_span_in_context(place.span), start_time=began_ns, attributes=attributes
        )


class OtelStages:
    """Spans of one queue and of the work behind it, which works on one tick at a time.

    Args:
        tracer: Makes them.
        queue: The queue's name.
        work: Name of the span of a tick.
    """

    def __init__(self, tracer: OtelTracer, queue: str, work: str) -> None:
        self._tracer = tracer
        self._queue = queue
        self._work = work
        self._began_ns = 0

    def queued(self, future: "asyncio.Future[Any]") -> None:
        """Keep with the item since when it waits, and for whom."""
        places = CURRENT.get()
        if places:
            setattr(future, ATTRIBUTE, (places, time_ns()))

    @contextmanager
    def tick(self, futures: "Sequence[asyncio.Future[Any]]") -> Iterator[None]:
        """A span of waiting and a span of work for each request; the latter are current within."""
        self._began_ns = began_ns = time_ns()
        inside = []
        for future in futures:
            places, since_ns = getattr(future, ATTRIBUTE, ((), 0))
            for place in places:
                if place.budget.take(2):
                    waited = self._tracer.begin("queue", place, since_ns, {"acclimate.queue": self._queue})
                    waited.end(began_ns)
                    span = self._tracer.begin(self._work, place, began_ns, {"acclimate.items": len(futures)})
                    inside.append(Place(span, place.budget))
        token = CURRENT.set(tuple(inside))
        try:
            yield
        finally:
            CURRENT.reset(token)
            ended_ns = time_ns()
            for place in inside:
                place.span.end(ended_ns)

    def stage(self, name: str) -> None:
        """A span from the beginning of the tick until now."""
        ended_ns = time_ns()
        for place in CURRENT.get():
            if place.budget.take(1):
                self._tracer.begin(name, place, self._began_ns).end(ended_ns)
