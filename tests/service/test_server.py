"""The server ends in order: not ready, port closed, running requests answered, everything closed."""

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from models import write_bundle
from service.app import create_app, make_streams
from service.config import Settings
from service.errors import ConfigurationError
from service.server import base_url, listen, run
from service.store import MemoryStore
from service.streams import Streams
from tests.models.examples import small_model
from tests.service.http_case import NOW, own_logs, small_models

BODY = {"inputs": [[1.0, 2.0]], "targets": [1.0]}


class Slow(Streams):
    """Streams whose feedback is learned only once the server was told to stop."""

    app: FastAPI
    started = threading.Event()
    closed = False

    async def feedback(self, *given: Any, **named: Any) -> Any:
        """Wait for the signal, then learn."""
        self.started.set()
        while not self.app.state.context.draining:  # noqa: ASYNC110 - a signal handler sets it
            await asyncio.sleep(0.005)
        return await super().feedback(*given, **named)

    async def close(self) -> None:
        """Remember that it happened."""
        await super().close()
        self.closed = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order(number: signal.Signals) -> None:
    """Readiness turns 503, the running feedback is answered 200, streams are closed, and ``run`` simply returns."""
    settings = Settings(port=0, data_dir=Path("unused"), drain_seconds=0.3)
    streams = Slow(settings, MemoryStore(), small_models(), lambda: NOW)
    streams.started = threading.Event()
    app = create_app(settings, streams=streams)
    streams.app = app
    seen: dict[str, Any] = {}

    def teach(url: str) -> None:
        seen["feedback"] = httpx.post(f"{url}/v1/streams/s1/feedback", json=BODY, timeout=20).status_code

    def drive(url: str) -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            seen["before"] = client.get("/readyz").status_code
            client.put("/v1/streams/s1", json={"model": "reg"})
            teacher = threading.Thread(target=teach, args=(url,))
            teacher.start()
            streams.started.wait(20)
            os.kill(os.getpid(), number)
            if number == signal.SIGTERM:
                seen["after"] = _status_until_503(client)
            teacher.join(20)

    drivers: list[threading.Thread] = []

    def announce(url: str) -> None:
        drivers.append(threading.Thread(target=drive, args=(url,)))
        drivers[0].start()

    handlers = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    with own_logs():
        run(app, announce=announce)
    drivers[0].join(20)
    assert seen["before"] == 200
    assert seen["feedback"] == 200
    assert seen.get("after", 503) == 503
    assert streams.closed
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def _status_until_503(client: httpx.Client) -> int:
    """Readiness as it is once the signal has arrived."""
    for _ in range(200):
        status = client.get("/readyz").status_code
        if status == 503:
            break
    return status


def test_a_taken_port_is_refused_in_one_sentence() -> None:
    """The refusal names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1 port {port}"):
            listen(Settings(port=port))


def test_an_unknown_host_is_refused_in_one_sentence() -> None:
    """A name that does not resolve is no traceback."""
    with pytest.raises(ConfigurationError, match="cannot listen"):
        listen(Settings(host="nosuch.invalid", allow_anonymous=True))


def test_the_url_is_the_one_that_was_bound() -> None:
    """Port 0 shows as the port that was taken."""
    with listen(Settings(port=0)) as sock:
        assert base_url(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_an_error_at_start_reaches_the_caller() -> None:
    """What the streams raise when they start comes out of ``run`` as it is, and the port is free again."""

    class Broken(Streams):
        async def start(self) -> None:
            raise ConfigurationError("the data directory is in use")

    settings = Settings(port=0, data_dir=Path("unused"))
    app = create_app(settings, streams=Broken(settings, MemoryStore(), {}, lambda: NOW))
    with own_logs(), pytest.raises(ConfigurationError, match="in use"):
        run(app)


def test_a_changed_file_is_active_only_with_activate(tmp_path: Path) -> None:
    """It becomes the next version of its name either way."""
    file = tmp_path / "m.safetensors"
    found = []
    for name, activate in (("one", False), ("two", False), ("two", True), ("one", False)):
        file.write_bytes(write_bundle(small_model(name=name)))
        settings = Settings(data_dir=tmp_path / "data", models={"m": file}, activate=activate)
        streams = make_streams(settings, lambda: NOW)
        info = streams.model("m")
        asyncio.run(streams.close())
        found.append((info.versions, info.active_version))
    assert found == [([1], 1), ([1, 2], 1), ([1, 2], 2), ([1, 2], 2)]


def test_a_model_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """The refusal names the model and the file, before anything is served."""
    (tmp_path / "bad.safetensors").write_bytes(b"not a bundle")
    for name in ("bad.safetensors", "nosuch.safetensors"):
        with pytest.raises(ConfigurationError, match=name) as caught:
            create_app(Settings(data_dir=tmp_path / "data", models={"m": tmp_path / name}))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
