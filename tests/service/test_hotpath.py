"""The busiest routes are answered the same with FastAPI's layers and without."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import hotpath
from service.app import create_app
from service.config import Settings
from service.errors import SaturatedError
from service.hotpath import HotFastAPI
from service.store import MemoryStore
from service.streams import Streams
from tests.service.http_case import NOW, assert_problem, run_async, serving, small_models

JSON = {"content-type": "application/json"}
ROW = {"inputs": [[0.5, -1.0]]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "answered": ("/v1/streams/s/predict", {"json": ROW}),
    "learned": ("/v1/streams/s/feedback?return=predictions", {"json": {**ROW, "targets": [1.0], "ids": ["known"]}}),
    "labelled": ("/v1/streams/s/labels", {"json": {"labels": [{"id": "other", "target": 1.0}]}}),
    "unknown stream": ("/v1/streams/t/predict", {"json": ROW}),
    "no id": ("/v1/streams/a%20b/predict", {"json": ROW}),
    "another stream in the header": ("/v1/streams/s/predict", {"json": ROW, "headers": {"X-Stream-Id": "t"}}),
    "not JSON": ("/v1/streams/s/predict", {"content": b"{", "headers": JSON}),
    "not finite": ("/v1/streams/s/predict", {"content": b'{"inputs": [[NaN, 1]]}', "headers": JSON}),
    "another type": ("/v1/streams/s/feedback", {"content": b"x"}),
    "compressed": ("/v1/streams/s/predict", {"json": ROW, "headers": {"Content-Encoding": "gzip"}}),
    "too large": ("/v1/streams/s/predict", {"content": b" " * 2000, "headers": JSON}),
    "a wrong row": ("/v1/streams/s/predict", {"json": {"inputs": [[0.5, "x"]]}}),
    "an unknown field": ("/v1/streams/s/labels", {"json": {"label": []}}),
    "another path": ("/v1/streams/s/t/predict", {"json": ROW}),
    "no stream": ("/v1/streams//predict", {"json": ROW}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_both_ways_answer_alike(case: str) -> None:
    """Status, headers and body, but for the request's id."""
    path, given = CASES[case]

    @run_async
    async def both() -> None:
        settings = Settings(data_dir=Path("unused"), body_bytes_max=1000)
        app = create_app(settings, streams=Streams(settings, MemoryStore(), small_models(), lambda: NOW))
        assert isinstance(app, HotFastAPI)
        answers: list[httpx.Response] = []
        async with app.router.lifespan_context(app):
            for way in (app, app.framework):
                transport = httpx.ASGITransport(way, raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    if not answers:
                        await client.put("/v1/streams/s", json={"model": "reg"})
                        first = {**ROW, "targets": [1.0], "ids": ["known"]}
                        assert (await client.post("/v1/streams/s/feedback", json=first)).is_success
                    answers.append(await client.post(path, **given))
        one, other = answers
        assert (one.status_code, one.content) == (other.status_code, other.content)
        hidden = {"x-request-id"}
        assert {key: value for key, value in one.headers.items() if key not in hidden} == {
            key: value for key, value in other.headers.items() if key not in hidden
        }
        assert one.headers["x-request-id"] != other.headers["x-request-id"]

    both()


class Full(Streams):
    """Streams that have no room."""

    async def predict(self, *given: Any, **named: Any) -> Any:
        """Refuse."""
        del given, named
        raise SaturatedError("full")


@run_async
async def test_a_refusal_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that clients that come back at once leave time for those that are served; only so many are held."""
    monkeypatch.setattr(hotpath, "HELD_MAX", 2)
    async with serving(Full, refusal_seconds=3_600.0) as (client, _):
        held = [asyncio.create_task(client.post("/v1/streams/s/predict", json=ROW)) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert_problem(await client.post("/v1/streams/s/predict", json=ROW), 429)
        assert not any(task.done() for task in held)
        for task in held:
            task.cancel()
    async with serving(Full, refusal_seconds=0.0) as (client, _):
        assert_problem(await client.post("/v1/streams/s/predict", json=ROW), 429)
