"""Talking to the server under load, without a network: httpx's ASGI transport in front of a few lines of server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import httpx
import orjson
import pytest

from loadtest import __main__ as command
from loadtest import target
from loadtest.bodies import Request

T = TypeVar("T")


class Server:
    """Answers as the service would and remembers what it was asked."""

    def __init__(self, status: int = 200, results: Sequence[Any] = ()) -> None:
        self.status = status
        self.results = list(results)
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, by the ASGI protocol."""
        while (await receive()).get("more_body"):
            pass
        self.asked.append((scope["method"], scope["path"]))
        body: dict[str, Any] = {
            "features": [{"name": "x", "kind": "numeric"}],
            "classes": None,
            "predictions": [[0.0, 0.0]],
        }
        body |= {"results": self.results}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})


def asking(server: Any, do: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """Run against a server in this process."""

    async def main() -> T:
        transport = httpx.ASGITransport(app=server, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await do(client)

    return asyncio.run(main())


def test_shape_is_asked_from_the_server() -> None:
    """Kinds come from the model's page, the number of outputs from one prediction."""
    shape = asking(Server(), lambda client: target.shape_of(client, "sinusoid"))
    assert (shape.kinds, shape.outputs) == (("numeric",), 2)


def test_a_server_that_refuses_is_named_with_its_answer() -> None:
    """Set-up stops with the request and the status, not with a traceback."""
    with pytest.raises(target.TargetError, match="GET /v1/models/nope answered 404"):
        asking(Server(404), lambda client: target.shape_of(client, "nope"))


def test_streams_are_created_taught_and_removed() -> None:
    """By their first rows, many in a request; without any they are put, and all are deleted in the end."""
    server = Server()
    lessons = [{"stream": name, "model": "sinusoid", "inputs": [[1.0]], "targets": [2.0]} for name in "ab"]

    async def live(client: httpx.AsyncClient) -> None:
        await target.make_streams(client, "sinusoid", ["a", "b"], lessons)
        await target.make_streams(client, "sinusoid", ["c"], [])
        await target.delete_streams(client, ["a", "b", "c"])

    asking(server, live)
    assert server.asked[:2] == [("POST", "/v1/feedback"), ("PUT", "/v1/streams/c")]
    assert sorted(server.asked[2:]) == [("DELETE", f"/v1/streams/{name}") for name in "abc"]


def test_a_lesson_that_is_refused_ends_the_set_up() -> None:
    """With the stream and the reason, although the request itself was answered 200."""
    server = Server(results=[{"stream": "a", "error": {"detail": "the disk is on fire"}}])
    lesson = {"stream": "a", "model": "sinusoid", "inputs": [[1.0]], "targets": [2.0]}
    with pytest.raises(target.TargetError, match="a was not taught: the disk is on fire"):
        asking(server, lambda client: target.make_streams(client, "sinusoid", ["a"], [lesson]))


def test_sender_reports_the_status() -> None:
    """Whatever the server answers is the request's outcome, errors too."""
    request = Request("/v1/streams/a/predict", b"{}")
    assert asking(Server(429), lambda client: target.sender(client, [request], 1.0)(0)) == "429"


def test_sender_gives_up_after_its_timeout() -> None:
    """A server that never answers costs the timeout, however it trickles."""

    async def never(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.get_running_loop().create_future()

    request = Request("/v1/streams/a/predict", b"{}")
    assert asking(never, lambda client: target.sender(client, [request], 0.001)(0)) == "timeout"


def test_names_of_two_runs_never_meet() -> None:
    """A run makes streams of its own."""
    assert not set(target.new_names(10)) & set(target.new_names(10))


@pytest.mark.parametrize("url", ["http://10.0.0.1:8000", "http://example.org", "http://0.0.0.0:8000", "nonsense"])
def test_other_machines_are_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Load goes to this machine unless its user says otherwise; that is wrong usage, code 2."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--url", url])
    assert ended.value.code == 2
    assert "--allow-remote" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--rate", "0"], ["--streams", "0"], ["--in-flight", "5000"], ["--seconds", "nan"]])
def test_numbers_out_of_bounds_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A bound is named before anything is sent."""
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
