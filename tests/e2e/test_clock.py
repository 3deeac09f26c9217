"""The clock of the machine jumps by days, to and fro, while a real server learns (libfaketime)."""

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.server import Server, serving

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
THIS_YEAR = datetime.now(UTC).year - 1
"""Or the one before, where the year has just begun."""
STREAMS = ("a", "b")
BATCHES = 5
"""Of each stream, between two jumps."""
PROBE = {"inputs": [[-2.0], [0.5], [3.0]]}


class Life:
    """A client that remembers what was acknowledged.

    Args:
        client: Of the server.
        clock: The file that says by how much the server's clock is wrong.
    """

    def __init__(self, client: httpx.Client, clock: Path) -> None:
        self._client = client
        self._clock = clock
        self._numbers = itertools.count()
        self.rows = dict.fromkeys(STREAMS, 0)
        self.versions = dict.fromkeys(STREAMS, 0)

    def jump(self, offset: str) -> None:
        """Set the clock; as a whole, since the server reads the file at any time."""
        new = self._clock.with_suffix(".new")
        new.write_text(offset, encoding="ascii")
        new.replace(self._clock)

    def post(self, path: str, body: dict[str, Any], key: str = "") -> dict[str, Any]:
        """An answer, which has to be 200."""
        answer = self._client.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code == 200, answer.text
        return {**answer.json(), "replayed": answer.headers.get("idempotent-replayed") == "true"}

    def get(self, path: str) -> Any:
        """Likewise."""
        answer = self._client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def feed(self) -> None:
        """Feedback to all streams; each acknowledged row counts, and revisions go up."""
        for _ in range(BATCHES):
            for stream in STREAMS:
                number = next(self._numbers)
                x = (number * 0.37) % 10 - 5
                body = {"inputs": [[x], [-x]], "targets": [x, -x], "ids": [f"{number}-0", f"{number}-1"]}
                answer = self.post(f"/v1/streams/{stream}/feedback", body)
                assert answer["accepted"] == 2
                self.rows[stream] += 2
                assert answer["rows_seen"] == self.rows[stream]
                assert answer["stream_version"] > self.versions[stream]
                self.versions[stream] = answer["stream_version"]

    def learn_once(self, stream: str, key: str) -> bool:
        """Rows under a key; whether the answer was one that was given before."""
        body = {"inputs": [[1.0]], "targets": [0.5]}
        answer = self.post(f"/v1/streams/{stream}/feedback", body, key)
        if not answer["replayed"]:
            self.rows[stream] += 1
            self.versions[stream] = answer["stream_version"]
        return bool(answer["replayed"])

    def keep(self, stream: str, name: str) -> None:
        """A prediction that waits for its label."""
        self.post(f"/v1/streams/{stream}/predict", {"inputs": [[0.5]], "ids": [name]})

    def label(self, stream: str, name: str) -> int:
        """Its label: how many rows that taught."""
        answer = self.post(f"/v1/streams/{stream}/labels", {"labels": [{"id": name, "target": 0.25}]})
        self.rows[stream] += answer["accepted"]
        self.versions[stream] = max(self.versions[stream], answer["stream_version"])
        return int(answer["accepted"])

    def check(self) -> None:
        """Nothing is lost, and no time or count is out of this world."""
        for stream in STREAMS:
            info = self.get(f"/v1/streams/{stream}")
            assert info["rows_seen"] == self.rows[stream]
            revisions = self.get(f"/v1/streams/{stream}/revisions?limit=1000")["items"]
            versions = [each["revision"] for each in revisions]
            assert versions == sorted(set(versions))
            assert all(datetime.fromisoformat(each["at"]).year >= THIS_YEAR for each in revisions)
            assert versions[-1] == info["stream_version"]
        values = [line.rsplit(" ", 1)[1] for line in self._client.get("/metrics").text.splitlines() if line[0] != "#"]
        assert not [value for value in values if float(value) < 0]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A file that says by how much a server's clock is wrong."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed (Debian: libfaketime)")
    file = tmp_path / "clock"
    file.write_text("+0d", encoding="ascii")
    return file


def client_of(server: Server) -> httpx.Client:
    """Patient, since every look at the clock reads a file there."""
    return httpx.Client(base_url=server.url, trust_env=False, timeout=60)


def test_a_clock_that_jumps_loses_nothing(clock: Path, tmp_path: Path) -> None:
    """Two days on, then four back: rows, revisions, repeats, late labels and roll-backs; then the right time.

    What was kept for a day is gone two days later; what was kept in a time that is still to come stays.
    """
    environ = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "ACCLIMATE_LOG_DAYS": "1",
        "ACCLIMATE_PENDING_DAYS": "1",
    }
    data_dir = tmp_path / "data"
    with serving((), environ, data_dir) as server, client_of(server) as client:
        life = Life(client, clock)
        for stream in STREAMS:
            assert client.put(f"/v1/streams/{stream}", json={"model": "sinusoid"}).status_code == 201
        life.feed()
        assert [life.learn_once("a", "first") for _ in range(2)] == [False, True]
        life.keep("a", "early")
        life.keep("b", "early")
        assert life.label("b", "early") == 1
        life.check()

        life.jump("+2d")
        life.feed()
        assert [life.learn_once("a", "second") for _ in range(2)] == [False, True]
        assert life.label("a", "early") == 0
        life.keep("a", "late")
        life.check()
        version = life.versions["b"]
        life.feed()

        life.jump("-2d")
        life.feed()
        assert life.learn_once("a", "second")
        assert [life.learn_once("b", "third") for _ in range(2)] == [False, True]
        assert life.label("a", "late") == 1
        life.check()
        answer = life.post("/v1/streams/b/rollback", {"revision": version})
        assert answer["restored"] == version
        expected = [life.post(f"/v1/streams/{stream}/predict", PROBE)["predictions"] for stream in STREAMS]
    with serving((), {}, data_dir) as server, client_of(server) as client:
        again = Life(client, clock)
        again.rows, again.versions = life.rows, {}
        for stream in STREAMS:
            assert again.get(f"/v1/streams/{stream}")["rows_seen"] == life.rows[stream]
        found = [again.post(f"/v1/streams/{stream}/predict", PROBE)["predictions"] for stream in STREAMS]
        assert found == [pytest.approx(each, rel=1e-5) for each in expected]
