"""The database is lost, at any point of a commit, for a while, or with its machine: nothing acknowledged goes along."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from service.errors import ServiceError, UnavailableError
from service.payload import decode_feedback
from service.store import Create, Database, Done, Once, PostgresStore, Refusal
from service.store.driver import translate
from service.store.postgres_link import BACKOFF_SECONDS_MAX, SETTLE_SECONDS, Timing
from tests.checks import postgres
from tests.checks.stores import append, done
from tests.service.http_case import run_async
from tests.service.streams_case import opened

Cut = Literal["before", "after", "never"]


class Wire:
    """A connection to the database that is cut where it is told: before or after a commit gets there.

    Attributes:
        cut: Where the next commit is cut off.
        open: Whether further connections come through.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self.cut: Cut = "never"
        self.open = True
        self.cuts = 0
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self.open:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._begin(self._forth, client, server)
                self._begin(self._back, server, client)

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        """What the store says; a commit is cut off as told."""
        with suppress(OSError):
            while data := client.recv(2**16):
                if self.cut != "never" and b"COMMIT\0" in data:
                    before, self.cut = self.cut == "before", "never"
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)  # nobody hears what becomes of it
                    if before:
                        break
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(2**16):
                with suppress(OSError):
                    client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)  # wakes the other direction, which closing does not
        server.close()
        client.close()

    def close(self) -> None:
        """Take no more connections, and wait for the ends of those there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


class Still:
    """A clock that stands but for the waits that are made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def timing(self) -> Timing:
        """How time is told and passed here."""
        return Timing(lambda: self.now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, PostgresStore, Still]]:
    """A store behind a wire."""
    place = postgres.database()
    folder = tmp_path_factory.mktemp("w")
    host = psycopg.conninfo.conninfo_to_dict(place.url).get("host")
    if not host or not str(host).startswith("/"):
        pytest.skip("the wire is cut on a Unix socket: leave ACCLIMATE_TEST_POSTGRES unset")
    wire, still = Wire(folder, f"{host}/.s.PGSQL.5432"), Still()
    store = PostgresStore(Database(place.url.replace(str(host), str(folder)), place.schema), still.timing())
    yield wire, store, still
    store.close()
    wire.close()
    postgres.give_back(place)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_that_is_cut_off_is_done_once(wired: tuple[Wire, PostgresStore, Still], cut: Cut) -> None:
    """Whether it got there or not, the store finds out, does it if it was not done, and answers as if nothing were."""
    wire, store, still = wired
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    wire.cut = cut
    answer = done(store, append(record))
    assert wire.cuts == 1
    assert store.get("s") == (answer.record, None)
    assert [entry.revision for entry in store.entries(answer.record, 0, 9)] == [1]
    assert store.write([append(record)]) == [Refusal.STALE]
    assert still.waits == []


@pytest.mark.parametrize("cut", ["before", "after"])
def test_what_nobody_can_know_is_said(wired: tuple[Wire, PostgresStore, Still], cut: Cut) -> None:
    """No server to be asked: 503 that says so; later the truth is what the store says, whichever it is."""
    wire, store, still = wired
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    wire.cut, wire.open = cut, False
    with pytest.raises(UnavailableError, match="whether it was done is not known: repeat the request with") as caught:
        store.write([append(record)])
    assert caught.value.retry_after_s
    assert SETTLE_SECONDS <= sum(still.waits) < SETTLE_SECONDS + BACKOFF_SECONDS_MAX
    wire.open = True
    still.now += 60
    assert isinstance(store.write([append(record)])[0], Done if cut == "before" else Refusal)
    found = store.get("s")
    assert found is not None
    assert found[0].stream_version == 1


def test_a_database_that_is_away_is_asked_less_and_less(wired: tuple[Wire, PostgresStore, Still]) -> None:
    """Each answer says when to come again; in between nobody waits for a connection; then all is as it was."""
    wire, store, still = wired
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    with postgres.connected(Database(postgres.url(), "public")) as db:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='acclimate'"
        db.execute(ended.encode())
    wire.open = False
    waits = []
    for _ in range(8):
        with pytest.raises(UnavailableError, match="nothing was changed") as caught:
            store.write([append(record)])
        with pytest.raises(UnavailableError, match="does not answer: nothing was changed"):
            store.get("s")
        assert caught.value.retry_after_s
        wait_s = store._lines._not_before - still.now
        waits.append(wait_s)
        still.now += wait_s
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(0.1)
    assert waits[-1] == BACKOFF_SECONDS_MAX
    wire.open = True
    assert store.get("s") == (record, None)
    done(store, append(record))


def test_a_restart_between_two_requests_is_not_noticed(wired: tuple[Wire, PostgresStore, Still]) -> None:
    """Connections that were idle meanwhile are made anew, for reads and for writes."""
    _, store, _ = wired
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    for _ in range(2):
        with postgres.connected(Database(postgres.url(), "public")) as db:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='acclimate'"
            db.execute(ended.encode())
        assert store.get("s") is not None
        record = done(store, append(record, ids=())).record
    assert record.stream_version == 2


def test_a_session_that_ends_in_the_middle_has_changed_nothing(wired: tuple[Wire, PostgresStore, Still]) -> None:
    """As that of a machine that was paused for too long: what it was doing is done anew, on what is true by then."""
    _, store, _ = wired
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    made: list[int] = []

    def answer(told: Done) -> bytes:
        made.append(told.record.stream_version)
        if len(made) == 1:
            with postgres.connected(Database(postgres.url(), "public")) as db:
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='acclimate'"
                db.execute(ended.encode())
        return b"answer"

    other = append(record, ids=("other",))
    answers = store.write([append(record, once=Once("k", b"", answer, 1.0, 0.0)), other])
    assert [type(each) for each in answers] == [Done, Refusal]
    assert made == [1, 1]
    found = store.get("s")
    assert found is not None
    assert [entry.revision for entry in store.entries(found[0], 0, 9)] == [1]


def test_what_holds_a_stream_for_too_long_is_waited_for_no_longer() -> None:
    """A lock that another session keeps: 503, and nothing has changed."""
    place = postgres.database()
    store = PostgresStore(place)
    record = done(store, Create("s", "m", 1, {}, {}, 1.0)).record
    store._lines._writer.execute("SET lock_timeout = '50ms'")
    with postgres.connected(place) as db, db.transaction():
        db.execute("SELECT FROM streams FOR UPDATE")
        with pytest.raises(UnavailableError, match="lock timeout"):
            store.write([append(record)])
    done(store, append(record))
    store.close()
    postgres.give_back(place)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (psycopg.errors.DiskFull("no space"), 507),
        (psycopg.errors.DataCorrupted("page 7"), 500),
        (psycopg.errors.IndexCorrupted("page 7"), 500),
        (psycopg.errors.QueryCanceled("statement timeout\nCONTEXT: row contents"), 503),
    ],
)
def test_errors_of_the_database_say_what_to_do(error: psycopg.Error, status: int) -> None:
    """By what they are, and never with what the server tells of rows."""
    found = translate(error)
    assert isinstance(found, ServiceError)
    assert found.status == status
    assert "row contents" not in found.detail


WRITERS, ROWS_EACH = 4, 12


@run_async
async def test_every_acknowledged_row_is_there_once_after_the_server_has_failed() -> None:
    """A server that syncs is ended without a word twice, and a session of it killed, under load.

    Meanwhile 503, and then on; clients repeat what was refused under the same ids.
    """
    server = await asyncio.to_thread(postgres.Server, synced=True)
    acknowledged: list[str] = []
    refused: list[int] = []

    async def write(writer: int) -> None:
        for number in range(ROWS_EACH):
            name = f"{writer}.{number}"
            while True:
                try:
                    answer = await streams.feedback("s" if number % 2 else f"t{writer}", [[0.5, 1.0]], [1.0], [name])
                except UnavailableError as error:
                    refused.append(error.retry_after_s or 0)
                    await asyncio.sleep(0.02)
                else:
                    assert answer.accepted + answer.duplicates == 1
                    acknowledged.append(name)
                    break

    async def fail() -> None:
        for share in (4, 2, 1.3):
            while len(acknowledged) < WRITERS * ROWS_EACH / share - 4:  # noqa: ASYNC110 - it is nobody's event
                await asyncio.sleep(0.001)
            if share == 2:
                await asyncio.to_thread(server.kill_session)
                continue
            await asyncio.to_thread(server.fail)
            await asyncio.to_thread(server.start)

    try:
        async with opened(PostgresStore(Database(server.url))) as streams:
            for name in ("s", *(f"t{writer}" for writer in range(WRITERS))):
                await streams.put(name, "reg")
            await asyncio.gather(fail(), *(write(writer) for writer in range(WRITERS)))
        assert refused
        assert min(refused) >= 1
        store = PostgresStore(Database(server.url))
        found: Counter[str] = Counter()
        for record, _ in store.page("", None, 100, ""):
            assert store.load(record.stream) is not None
            for entry in store.entries(record, 0, 1_000):
                found.update(str(name) for name in decode_feedback(entry.payload)[0].ids or ())
        store.close()
        assert found == Counter(acknowledged)
        assert len(acknowledged) == WRITERS * ROWS_EACH
    finally:
        server.remove()
