"""Traces: what a request waited for, as spans. Off, and OpenTelemetry's SDK not imported, until a collector is named.

A request's span has a span for each queue that it stood in and for the tick that worked on it; that of learning has
the step and the commit below it. A tick works on many requests at once, and each gets spans of its own. This module
says what the rest of the service needs of that; ``service.spans`` has it, and is the one place that imports the extra.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Protocol, cast

from starlette.types import Scope

from service.errors import ConfigurationError

CURRENT: ContextVar[tuple[Any, ...]] = ContextVar("traced", default=())
"""The spans that what is done now belongs to: one of a request, or in a tick one of each of its requests."""


class Traced(Protocol):
    """A request that is traced."""

    @property
    def id(self) -> str:
        """Of its trace, in hexadecimal."""
        ...

    def end(self, route: str, status: int, stream: str | None) -> None:
        """It was answered."""
        ...


class Stages(Protocol):
    """What one queue and the work behind it tell. Belongs to the event loop."""

    def queued(self, future: "asyncio.Future[Any]") -> None:
        """An item was queued, whose answer this is, by whoever is current."""
        ...

    def tick(self, futures: "Sequence[asyncio.Future[Any]]") -> AbstractContextManager[None]:
        """Within, items are worked on together."""
        ...

    def stage(self, name: str) -> None:
        """Within a tick: a first part of its work has ended."""
        ...


class Tracer(Protocol):
    """Where traces go."""

    def request(self, scope: Scope, request_id: str) -> Traced | None:
        """A request begins, and is current from now on; ``None`` if it is not traced."""
        ...

    def stages(self, queue: str, work: str) -> Stages:
        """For a queue."""
        ...

    def close(self) -> None:
        """Send what has not been sent."""
        ...


def open_tracer(endpoint: str | None) -> Tracer | None:
    """What sends traces to a collector; ``None`` where there is none.

    Args:
        endpoint: Its address, as ``http://127.0.0.1:4318``.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    if not endpoint:
        return None
    try:
        spans = import_module("service.spans")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"traces need the extra otel ({error.name} is missing): pip install 'acclimate[otel]', "
            "or leave ACCLIMATE_OTLP_ENDPOINT out"
        ) from error
    return cast("Tracer", spans.exporting(endpoint))
