"""How a client tries again, reads answers, and takes rows apart; without a server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import (
    ApiError,
    AsyncClient,
    Client,
    InvalidError,
    NotFoundError,
    SaturatedError,
    ServerError,
    UnreachableError,
    UploadStoppedError,
)
from service.client.data import lines_of, rows_of, values_of
from service.client.following import EventReader

Answer = httpx.Response | Exception
LEARNED = {
    "stream": "s",
    "accepted": 1,
    "duplicates": 0,
    "rows_seen": 1,
    "model_version": 1,
    "stream_version": 1,
    "state": "new",
    "loss": 0.5,
    "score": 0.1,
    "initial_loss": 0.5,
    "initial_score": 0.1,
    "drift": None,
    "what_a_newer_service_adds": [1],
}


class Scripted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers in turn, and keeps what was asked and how long was waited."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, or fail."""
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The same."""
        await request.aread()
        return self.handle_request(request)

    async def wait(self, seconds: float) -> None:
        """Do not wait."""
        self.waits.append(seconds)


def ok(body: Any = LEARNED, **headers: str) -> httpx.Response:
    """A good answer."""
    return httpx.Response(200, json=body, headers=headers)


def problem(status: int, detail: str = "no", **headers: str) -> httpx.Response:
    """An answer that is an error."""
    body = {"type": "t", "title": "T", "status": status, "detail": detail, "instance": "/"}
    return httpx.Response(status, json=body, headers=headers)


def blocking(script: Scripted, ask: Callable[[Any], Any], retries: int) -> Any:
    """Ask by the client that blocks."""
    with Client(
        "http://test", "k", transport=script, sleep=script.waits.append, draw=Random(0), retries=retries
    ) as client:
        return ask(client)


def awaited(script: Scripted, ask: Callable[[Any], Any], retries: int) -> Any:
    """Ask by the other one."""

    async def run() -> Any:
        client = AsyncClient("http://test", "k", transport=script, sleep=script.wait, draw=Random(0), retries=retries)
        async with client:
            return await ask(client)

    return asyncio.run(run())


@pytest.fixture(params=[blocking, awaited])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both clients, alike."""

    def asked(script: Scripted, what: Callable[[Any], Any], retries: int = 5) -> Any:
        return request.param(script, what, retries)

    return asked


def teach(client: Any) -> Any:
    """One row of feedback."""
    return client.stream("s").feedback([[1.0]], [2.0])


def test_feedback_is_sent_again_under_the_same_key(ask: Callable[..., Any]) -> None:
    """After a cut, a saturation and a server that stops: the last answer counts, and no wait is shorter than asked."""
    script = Scripted(
        [
            httpx.ReadError("cut"),
            problem(429, **{"Retry-After": "7"}),
            problem(503, **{"Retry-After": "1"}),
            problem(409, "The first request with this Idempotency-Key is still running: repeat it in a second."),
            ok(**{"Idempotent-Replayed": "true"}),
        ]
    )
    learned = ask(script, teach)
    assert (learned.accepted, learned.replayed) == (1, True)
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 1
    assert script.requests[0].headers["authorization"] == "Bearer k"
    assert len(script.waits) == 4
    assert script.waits[1] >= 7
    assert all(wait <= 2 for wait in (script.waits[0], *script.waits[2:]))


def test_what_is_wrong_is_raised_at_once(ask: Callable[..., Any]) -> None:
    """By its kind, with the service's words."""
    for status, kind in ((404, NotFoundError), (500, ServerError), (418, ApiError)):
        script = Scripted([problem(status, "because", **{"X-Request-Id": "r"})])
        with pytest.raises(kind, match="because") as raised:
            ask(script, teach)
        assert (raised.value.status, raised.value.request_id, script.waits) == (status, "r", [])
    body = {"detail": "d", "errors": [{"loc": ["inputs", 0], "msg": "m"}]}
    with pytest.raises(InvalidError) as invalid:
        ask(Scripted([httpx.Response(422, json=body)]), teach)
    assert invalid.value.errors[0].loc == ("inputs", 0)
    with pytest.raises(ServerError, match="no reason"):
        ask(Scripted([httpx.Response(502, text="<html>")]), teach, 0)


def test_patience_ends(ask: Callable[..., Any]) -> None:
    """After the retries the last error is raised, whatever it was."""
    with pytest.raises(SaturatedError):
        ask(Scripted([problem(429)] * 3), teach, 2)
    with pytest.raises(UnreachableError, match="ConnectError"):
        ask(Scripted([httpx.ConnectError("refused")] * 3), teach, 2)


def test_what_must_not_happen_twice_is_not_sent_twice(ask: Callable[..., Any]) -> None:
    """A reset that got no answer may have happened; one that was refused for now did not."""
    script = Scripted([httpx.ReadError("cut")])
    with pytest.raises(UnreachableError):
        ask(script, lambda client: client.stream("s").reset())
    assert len(script.requests) == 1


def test_an_upload_goes_in_parts_and_says_how_far_it_got(ask: Callable[..., Any]) -> None:
    """10,000 rows each, a cut part again; a row that is refused ends it."""
    told: list[tuple[int, int | None]] = []

    def part(offset: int, rows: int) -> httpx.Response:
        line = {"done": True, "offset": offset, "batches": 2, "accepted": rows, "duplicates": 0, "loss": 0.1}
        return httpx.Response(200, text=f'{{"offset": 1}}\n{json.dumps(line)}\n')

    script = Scripted([part(10_000, 10_000), httpx.ReadError("cut"), part(10_005, 3)])
    rows = ({"input": [float(number)], "target": 1.0} for number in range(10_005))
    found = ask(
        script,
        lambda client: client.stream("s").upload(rows, upload="u", batch=64, progress=lambda *each: told.append(each)),
    )
    assert (found.rows, found.accepted, found.batches) == (10_005, 10_003, 4)
    assert told == [(10_000, None), (10_005, None)]
    assert [request.headers["upload-offset"] for request in script.requests] == ["0", "10000", "10000"]
    assert script.requests[0].url.params["batch"] == "64"
    stopped = {"done": False, "offset": 7, "error": {"status": 422, "detail": "row 7"}}
    script = Scripted([httpx.Response(200, text=json.dumps(stopped))])
    with pytest.raises(UploadStoppedError, match="after 7 rows") as raised:
        ask(script, lambda client: client.upload([{"stream": "s", "input": [1.0], "target": "x"}]))
    assert isinstance(raised.value.error, InvalidError)


def test_lists_are_followed_page_by_page() -> None:
    """Until the last one; items are values."""
    items = [{**LEARNED, "revision": number, "kind": "feedback", "at": "t", "rows": 1} for number in range(3)]
    script = Scripted([ok({"items": items[:2], "next_cursor": "2"}), ok({"items": items[2:], "next_cursor": None})])
    found = blocking(script, lambda client: list(client.stream("s").revisions()), 0)
    assert [revision.revision for revision in found] == [0, 1, 2]
    assert script.requests[1].url.params["after"] == "2"


def test_rows_come_out_of_whatever_holds_them() -> None:
    """Lists, arrays, frames: values in order, or by name; NaN is a missing value; NumPy's numbers are numbers."""
    frame = pl.DataFrame({"a": [1.0, None], "b": ["x", "y"]})
    assert rows_of(frame) == [{"a": 1.0, "b": "x"}, {"a": None, "b": "y"}]
    assert rows_of(np.array([[1.0, np.nan], [2.0, 3.0]])) == [[1.0, None], [2.0, 3.0]]
    assert rows_of(np.array([1.0, 2.0])) == [[1.0], [2.0]]
    assert rows_of([(np.float32(1.5), np.int64(2))]) == [[1.5, 2]]
    assert values_of(pl.Series([1, 2])) == [1, 2]
    assert values_of(np.array(["a", "b"])) == ["a", "b"]
    for wrong in (5, "text", None, {1: 2}):
        with pytest.raises(TypeError):
            values_of(wrong)
    with pytest.raises(TypeError, match="not int"):
        rows_of(5)
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"a": [1.0, float("nan")], "y": [1, 2]})
    assert rows_of(table) == [{"a": 1.0, "y": 1}, {"a": None, "y": 2}]
    assert list(lines_of(table, target="y")) == [
        {"input": {"a": 1.0}, "target": 1},
        {"input": {"a": None}, "target": 2},
    ]


def test_rows_of_an_upload_need_labels() -> None:
    """From a column, beside them, or in each row."""
    frame = pl.DataFrame({"a": [1.0], "y": [2.0]})
    assert list(lines_of(frame, target="y")) == [{"input": {"a": 1.0}, "target": 2.0}]
    assert list(lines_of([[1.0]], [2.0])) == [{"input": [1.0], "target": 2.0}]
    with pytest.raises(TypeError, match="no column 'z'"):
        list(lines_of(frame, target="z"))
    with pytest.raises(TypeError, match="target=NAME"):
        list(lines_of([[1.0]]))
    with pytest.raises(ValueError, match="shorter"):
        list(lines_of([[1.0], [2.0]], [1.0]))


@given(st.lists(st.integers(1, 40), max_size=40))
def test_events_are_read_from_any_pieces(cuts: list[int]) -> None:
    """However the bytes are cut; comments and other fields are passed over."""
    stated = {"stream": "s", "revision": 1, "at": "t", "kind": "drift"}
    blocks = [f"id: {number}\nevent: drift\ndata: {json.dumps({**stated, 'id': str(number)})}\n\n" for number in (1, 2)]
    text = ("retry: 2000\n\n" + blocks[0] + ": alive\n\n" + blocks[1]).replace("\n", "\r\n").encode()
    reader, found = EventReader(), []
    for size in (*cuts, len(text)):
        found += list(reader.feed(text[:size]))
        text = text[size:]
    assert [event.id for event in found] == ["1", "2"]
    assert reader.last_id == "2"


def test_the_client_needs_httpx_alone() -> None:
    """Neither torch nor anything of the service or of the data libraries is imported."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "torch fastapi pydantic numpy pandas polars starlette orjson river".split():
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from service.client import AsyncClient, Client
assert not {"torch", "numpy", "fastapi"} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
