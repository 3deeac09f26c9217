"""The real process: served over a socket, ended by SIGTERM with exit code 0, and nothing is lost over a restart."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from models import write_bundle
from tests.models.examples import small_model

SERVE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from service.app import create_app\n"
    "from service.config import load_settings\n"
    "from service.server import run\n"
    "settings = load_settings(port=0, data_dir=Path(sys.argv[1]), models={'m': Path(sys.argv[2])})\n"
    "run(create_app(settings), announce=lambda url: print(url, flush=True))\n"
)


@contextmanager
def served(folder: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A running server process, and a client for it."""
    command = [sys.executable, "-c", SERVE, str(folder / "data"), str(folder / "m.safetensors")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCLIMATE_")}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url, (folder / "log").read_text()
            with httpx.Client(base_url=url, timeout=60) as client:
                yield client, process
        finally:
            process.kill()


def stop(process: subprocess.Popen[bytes]) -> int:
    """Exit code after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def test_sigterm_exits_0_and_a_restart_has_everything(tmp_path: Path) -> None:
    """Rows, revision, events and predictions are the same after a restart; each log line is JSON without values."""
    (tmp_path / "m.safetensors").write_bytes(write_bundle(small_model(name="m")))
    probe = {"inputs": [[0.25, -0.5]]}
    with served(tmp_path) as (client, process):
        assert client.put("/v1/streams/s1", json={"model": "m"}).status_code == 201
        for step in range(3):
            body = {"inputs": [[0.5, step], [1.5, -step]], "targets": [4242.5, 2.0]}
            assert client.post("/v1/streams/s1/feedback", json=body).status_code == 200
        client.post("/v1/streams/s1/reset")
        before = client.get("/v1/streams/s1").json()
        events = client.get("/v1/streams/s1/events").json()
        predicted = client.post("/v1/streams/s1/predict", json=probe).json()["predictions"]
        assert stop(process) == 0
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [orjson.loads(line)["event"] for line in (lines[0], lines[-1])] == ["serving", "stopped"]
    assert all(orjson.loads(line) for line in lines)
    assert b"4242.5" not in b"".join(lines)
    with served(tmp_path) as (client, process):
        assert client.get("/v1/streams/s1").json() == before
        assert client.get("/v1/streams/s1/events").json() == events
        again = client.post("/v1/streams/s1/predict", json=probe).json()["predictions"]
        assert again == pytest.approx(predicted, rel=1e-5)
        assert stop(process) == 0
