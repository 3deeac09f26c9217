"""Helpers of the HTTP tests: a served application in memory, and the one examination of an error's shape."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import httpx
import structlog

from models import Model
from service.app import create_app
from service.config import Settings
from service.keys import KeyRing
from service.problems import is_open
from service.store import MemoryStore
from service.streams import Streams
from service.tracing import Tracer
from tests.models.examples import small_model

P = ParamSpec("P")
JSON = {"Content-Type": "application/json"}
NOW = 1_700_000_000.0


def run_async(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test to its end."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return wrapper


@contextmanager
def own_logs() -> Iterator[None]:
    """Within, the process's log configuration may be changed; it is undone afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level


def small_models() -> dict[str, Model]:
    """One model of each task, both of the features ``a`` and ``b``."""
    return {"reg": small_model("regression", name="reg"), "cls": small_model("classification", name="cls")}


@asynccontextmanager
async def serving(
    streams: Callable[..., Streams] = Streams,
    *,
    store: MemoryStore | None = None,
    keys: KeyRing | None = None,
    tracer: Tracer | None = None,
    **given: Any,
) -> AsyncIterator[tuple[httpx.AsyncClient, Streams]]:
    """An application over memory stores, started, and a client that talks to it without a network."""
    settings = Settings(data_dir=Path("unused"), **({"refusal_seconds": 0.0} | given))
    made = streams(settings, store or MemoryStore(), small_models(), lambda: NOW)

    def of_tenant(_tenant: str) -> Streams:
        return Streams(settings, MemoryStore(), small_models(), lambda: NOW, main=False)

    app = create_app(settings, streams=made, keys=keys, open_streams=of_tenant, tracer=tracer)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client, made


def assert_problem(answer: httpx.Response, status: int, *secrets: str) -> dict[str, Any]:
    """The shape of every error: RFC 9457, a request id, the wrong places for 422, and nothing of ``secrets``."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    body: dict[str, Any] = answer.json()
    expected = {"type", "title", "status", "detail", "instance"} | ({"errors"} if status == 422 else set())
    assert set(body) == expected
    assert body["status"] == status
    assert all(isinstance(body[name], str) and body[name] for name in ("type", "title", "detail", "instance"))
    assert body["instance"].startswith("/")
    for entry in body.get("errors", []):
        assert set(entry) == {"loc", "msg"}
        assert isinstance(entry["loc"], list)
        assert entry["msg"]
    if status == 422:
        assert body["errors"]
    if status in {429, 503}:
        assert int(answer.headers["retry-after"]) > 0
    assert not [secret for secret in secrets if secret in answer.text]
    return body


def assert_open_error(answer: httpx.Response, status: int, *secrets: str) -> str:
    """The shape of every error of the Open Inference Protocol: one sentence, a request id, nothing of ``secrets``."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    assert body["error"]
    if status in {429, 503}:
        assert int(answer.headers["retry-after"]) > 0
    assert not [secret for secret in secrets if secret in answer.text]
    return str(body["error"])


def assert_refused(answer: httpx.Response, status: int, *secrets: str) -> None:
    """The error's shape on whatever route it was asked of."""
    if is_open(answer.request.url.path):
        assert_open_error(answer, status, *secrets)
    else:
        assert_problem(answer, status, *secrets)
