"""Two real worker processes behind one port: one dies and comes back, and all end in order."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from models import write_bundle
from service.shards import shard_of
from tests.models.examples import small_model

STREAMS = [f"s{number}" for number in range(12)]
BATCH = {"inputs": [[0.5, 1.0], [1.5, -1.0]], "targets": [1.0, 2.0]}
WAIT_SECONDS = 60.0


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running service of two workers: its URL, and its supervisor."""
    (folder / "m.safetensors").write_bytes(write_bundle(small_model(name="m")))
    command = [sys.executable, "-m", "service.entry", "serve", "--port", "0", "--workers", "2"]
    command += ["--data-dir", str(folder / "data"), "--model", f"m={folder / 'm.safetensors'}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCLIMATE_")}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
            assert found, (folder / "log").read_text()
            yield found.group(), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_SECONDS)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids, as of now."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def until_answered(url: str, stream: str, **request: object) -> httpx.Response:
    """The first answer other than 503, over connections of its own, so that either worker may be asked."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            answer = httpx.request("POST", f"{url}/v1/streams/{stream}/predict", timeout=10, **request)  # type: ignore[arg-type]  # a body
        except httpx.TransportError:
            continue  # the connection was the dead worker's
        if answer.status_code != 503:
            return answer
        assert int(answer.headers["retry-after"]) > 0
    pytest.fail(f"no answer for {stream}")


def test_a_worker_that_dies_comes_back_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Any connection serves any stream; the other worker's streams go on; SIGTERM ends all with exit code 0."""
    with served(tmp_path) as (url, process):
        for name in STREAMS:
            assert httpx.put(f"{url}/v1/streams/{name}", json={"model": "m"}).status_code == 201
            for _ in range(2):
                answer = httpx.post(f"{url}/v1/streams/{name}/feedback", json=BATCH)
                assert answer.status_code == 200, answer.text
        assert len(httpx.get(f"{url}/v1/streams").json()["items"]) == len(STREAMS)
        probe = {"json": {"inputs": BATCH["inputs"]}}
        before = {name: until_answered(url, name, **probe).json() for name in STREAMS}
        dying = workers_of(process)[1]
        os.kill(dying, signal.SIGKILL)
        for name in STREAMS:
            if shard_of(name, 2) == 0:
                assert until_answered(url, name, **probe).json() == before[name]
        for name in STREAMS:
            after = until_answered(url, name, **probe).json()
            assert after["stream_version"] == 2
            assert after["predictions"] == pytest.approx(before[name]["predictions"], rel=1e-5)
            assert httpx.post(f"{url}/v1/streams/{name}/feedback", json=BATCH).json()["rows_seen"] == 6
        assert dying not in workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    lines = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert {line["worker"] for line in lines if line["event"] == "request"} == {0, 1}
    assert [line["worker"] for line in lines if line["event"] == "worker_died"] == [1]
    assert lines[-1]["event"] == "all_stopped"


def test_what_is_wrong_with_the_settings_is_said_once(tmp_path: Path) -> None:
    """As one line, with exit code 1."""
    command = [sys.executable, "-m", "service.entry", "serve", "--port", "0", "--workers", "2"]
    command += ["--data-dir", str(tmp_path / "data"), "--model", f"m={tmp_path / 'none.safetensors'}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert found.returncode == 1
    assert found.stderr.count("none.safetensors") == 1
    assert len(found.stderr.splitlines()) == 1


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """If that is killed, they commit and end by themselves."""
    with served(tmp_path) as (url, process):
        workers = workers_of(process)
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.kill()
        process.wait(WAIT_SECONDS)
        deadline = time.monotonic() + WAIT_SECONDS
        while any(map(works, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def works(pid: int) -> bool:
    """Whether a process is a worker still."""
    try:
        return b"service.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_port_that_another_service_shares_is_refused(tmp_path: Path) -> None:
    """Connections would be dealt to both, each with streams of its own."""
    with served(tmp_path) as (url, _):
        command = [sys.executable, "-m", "service.entry", "serve", "--workers", "2", "--port", url.rpartition(":")[2]]
        command += ["--data-dir", str(tmp_path / "other")]
        found = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert found.returncode == 1
    assert "choose another --port" in found.stderr
