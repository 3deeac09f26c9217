"""Connections to PostgreSQL, made when needed and again when lost, and what becomes of a commit that is cut off.

A connection may break between a commit and the word of it. Every transaction therefore leaves its number in a row of
its writer; after such a break that row is read, under a lock that waits for a transaction which may still be at work,
and says whether it was committed. So a client hears 200 or 503, and "it is not known" only where no server is reached.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import structlog

from service.errors import ConfigurationError, ServiceError, UnavailableError
from service.store.driver import Database, driver, first_line, is_lost, may_repeat, quoted, translate
from service.store.postgres_schema import LAYOUT, layout_of, prepare

READERS = 3
"""Connections that read, as many as a store has threads that do; each is made when it is first needed."""
CONNECT_SECONDS = 5
STATEMENT_MS = 30_000
LOCK_MS = 10_000
IDLE_MS = 15_000
"""A writer that stops in the middle of a transaction, as a paused machine does, loses its locks after this."""
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""So that a server that is gone without a word is noticed within some ten seconds."""
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 0.1, 2.0
"""Before a server that could not be reached is asked again; doubled each time."""
SETTLE_SECONDS = 5.0
"""How long it is tried to find out whether a transaction was committed."""
ATTEMPTS = 4
"""How often a transaction is tried that the server undid in favour of another, or whose connection was lost."""
WRITERS_KEPT = "30 days"
LEAD = 0x41636C6A
"""First part of the advisory lock of the one that leads; the second is its schema's."""
_log = structlog.get_logger("acclimate.store")
T = TypeVar("T")


class Timing(NamedTuple):
    """How time is told and passed.

    Attributes:
        clock: Seconds that only rise.
        sleep: Waits.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Lines:
    """The connections of one store. Thread-safe.

    Args:
        database: The store.
        timing: How time is told and passed.

    Raises:
        ConfigurationError: The server cannot be reached, or the store cannot be made or read.
    """

    def __init__(self, database: Database, timing: Timing) -> None:
        self._database = database
        self._timing = timing
        self._parameters = _parameters(database)
        self._not_before = self._wait_s = 0.0
        self._writer: Any = None
        self._name = uuid4()
        self._tick = 0
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(READERS):
            self._readers.put(None)
        try:
            self._writer = self._connect(check=False)
            prepare(self._writer, database)
            self._writer.execute("DELETE FROM writers WHERE at < now() - %s::interval", (WRITERS_KEPT,))
            (synced,) = self._writer.execute("SHOW fsync").fetchone()
        except BaseException as error:
            self.close()
            if isinstance(error, ServiceError):
                said = error.detail if error.__cause__ is None else first_line(error.__cause__)
                raise ConfigurationError(f"the database {database.place()} does not answer ({said})") from error
            raise
        if synced == "off":
            _log.warning("database_does_not_sync", place=database.place(), reason="fsync is off: a crash loses rows")

    def change(self, work: Callable[[Any], T]) -> T:
        """What ``work`` makes of a connection inside a transaction that is on disk on return.

        READ COMMITTED on purpose: a statement that waited for a row's lock then sees the row as it is, which is what a
        compare-and-set wants; what must not move is locked, and nothing is concluded from rows that are not.

        Raises:
            StoreFullError: No room; nothing was changed.
            UnavailableError: Any other failure; says whether anything was changed.
        """
        with self._writing:
            self._tick += 1
            for attempt in range(1, ATTEMPTS + 1):
                self._writer = connection = self._writer or self._connect()
                done: list[T] = []
                try:
                    with connection.pipeline():
                        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
                        result = work(connection)
                        self._number(connection, self._tick)
                        done.append(result)  # from here on, a lost connection does not say what became of it
                        connection.execute("COMMIT")
                except BaseException as error:
                    lost = isinstance(error, driver().Error) and is_lost(error, connection)
                    self._writer = _rolled_back(connection, lost=lost)
                    if not isinstance(error, driver().Error):
                        raise
                    if lost and done and self._settled(error):
                        return result
                    if attempt == ATTEMPTS or not (lost or may_repeat(error)):
                        raise translate(error) from error
                else:
                    return result
        raise AssertionError("the last attempt returns or raises")

    def read(self, work: Callable[[Any], T], *, one_moment: bool = True) -> T:
        """What ``work`` makes of a connection.

        Args:
            work: Asks.
            one_moment: Whether everything it asks is to be as of one moment; not needed for a single statement.
        """
        connection = self._readers.get()
        try:
            while True:
                fresh = connection is None
                connection = connection or self._connect()
                try:
                    return _read(connection, work, one_moment=one_moment)
                except BaseException as error:
                    lost = isinstance(error, driver().Error) and is_lost(error, connection)
                    connection = _rolled_back(connection, lost=lost)
                    if lost and not fresh:
                        continue  # it was lost while it was idle, as in a restart
                    if isinstance(error, driver().Error):
                        raise translate(error) from error
                    raise
        finally:
            self._readers.put(connection)

    def lead(self) -> bool:
        """Whether the session of the writing connection has the lock that one session at a time can have.

        Who has it gets it again, which is how to ask; it ends with the session, also where that is cut off.
        """
        with self._writing:
            self._writer = connection = self._writer or self._connect()
            try:
                row = connection.execute(
                    "SELECT pg_try_advisory_lock(%s::int, hashtext(%s))", (LEAD, self._database.schema)
                ).fetchone()
            except driver().Error as error:
                self._writer = _rolled_back(connection, lost=is_lost(error, connection))
                raise translate(error) from error
            return bool(row[0])

    def close(self) -> None:
        """Close all that are idle."""
        with self._writing:
            if self._writer is not None:
                with suppress(driver().Error):  # so that another leads at once; where it is lost, the server sees to it
                    self._writer.execute("SELECT pg_advisory_unlock_all()")
                self._writer.close()
        while not self._readers.empty():
            connection = self._readers.get()
            if connection is not None:
                connection.close()

    def _number(self, connection: Any, tick: int) -> Any:
        return connection.execute(
            "INSERT INTO writers (writer, tick) VALUES (%s, %s)"
            " ON CONFLICT (writer) DO UPDATE SET tick=greatest(writers.tick, excluded.tick), at=now() RETURNING tick",
            (self._name, tick),
        )

    def _settled(self, error: Exception) -> bool:
        """Whether the transaction of this tick was committed, whose connection was lost.

        Raises:
            UnavailableError: No server could be asked.
        """
        deadline = self._timing.clock() + SETTLE_SECONDS
        while True:
            try:
                self._writer = self._writer or self._connect()
                return bool(self._number(self._writer, 0).fetchone()[0] == self._tick)
            except (driver().Error, UnavailableError) as failure:
                if self._writer is not None:
                    self._writer = _rolled_back(self._writer, lost=True)
                if self._timing.clock() >= deadline:
                    raise UnavailableError(
                        f"The database was lost during a commit ({first_line(error)}), and whether it was done is not "
                        "known: repeat the request with the ids of its rows, or with its Idempotency-Key.",
                        retry_after_s=getattr(failure, "retry_after_s", None) or 1,
                    ) from failure
                self._timing.sleep(max(self._not_before - self._timing.clock(), BACKOFF_SECONDS))

    def _connect(self, *, check: bool = True) -> Any:
        """A connection on which every statement commits by itself.

        Raises:
            UnavailableError: The server does not answer, or did not a moment ago.
        """
        wait_s = self._not_before - self._timing.clock()
        if wait_s > 0:
            raise UnavailableError(
                "The database does not answer: nothing was changed, repeat later.", retry_after_s=math.ceil(wait_s)
            )
        connection = None
        try:
            connection = driver().connect(autocommit=True, **self._parameters)
            _set_up(connection, self._database.schema)
            if check and layout_of(connection, self._database.schema) != LAYOUT:
                raise UnavailableError("The database has another layout by now: restart the service, or update it.")
        except (driver().Error, ServiceError) as error:
            if connection is not None:
                connection.close()
            self._wait_s = min(2 * self._wait_s, BACKOFF_SECONDS_MAX) or BACKOFF_SECONDS
            self._not_before = self._timing.clock() + self._wait_s
            reason = first_line(error)
            _log.warning("database_not_reached", place=self._database.place(), reason=reason, wait_s=self._wait_s)
            if isinstance(error, ServiceError):
                raise
            raise UnavailableError(  # where the database is, and what it said, is for the log
                "The database does not answer: nothing was changed, repeat later.",
                retry_after_s=math.ceil(self._wait_s),
            ) from error
        self._wait_s = 0.0
        return connection


def connect_plainly(database: Database) -> Any:
    """A connection on which every statement commits by itself, for as long as it takes; the caller closes it.

    Raises:
        ConfigurationError: The server cannot be reached.
    """
    try:
        connection = driver().connect(autocommit=True, **_parameters(database))
    except driver().Error as error:
        raise ConfigurationError(f"the database {database.place()} does not answer ({first_line(error)})") from error
    connection.execute("SELECT set_config('search_path', %s, false)", (quoted(database.schema),))
    return connection


def _parameters(database: Database) -> dict[str, Any]:
    """Of a connection; what the URL states comes before what is set here."""
    usual: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "acclimate",
        "client_encoding": "utf8",
        "target_session_attrs": "read-write",  # of several hosts the one that takes writes
        **KEEPALIVE,
    }
    try:
        stated: dict[str, Any] = driver().conninfo.conninfo_to_dict(database.url)
    except driver().Error:
        raise ConfigurationError(
            "the address of the database cannot be read: write postgresql://USER@HOST/DATABASE"
        ) from None  # libpq repeats a part of it, which may be the password
    return usual | stated


def _set_up(connection: Any, schema: str) -> None:
    # One type for all whole numbers: statements are prepared by the types of their parameters.
    connection.adapters.register_dumper(int, driver().types.numeric.Int8BinaryDumper)
    settings = {
        "search_path": quoted(schema),
        "statement_timeout": str(STATEMENT_MS),
        "lock_timeout": str(LOCK_MS),
        "idle_in_transaction_session_timeout": str(IDLE_MS),
    }
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    (synchronous,) = connection.execute("SHOW synchronous_commit").fetchone()
    if synchronous == "off":  # an answer 200 means that the rows are on disk; stricter settings than "on" stay
        connection.execute("SET synchronous_commit = on")


def _read(connection: Any, work: Callable[[Any], T], *, one_moment: bool) -> T:
    with connection.pipeline():
        if not one_moment:
            return work(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        result = work(connection)
        connection.execute("COMMIT")
    return result


def _rolled_back(connection: Any, *, lost: bool) -> Any:
    """The connection, outside any transaction; closed, and ``None``, where it is lost, or turns out to be."""
    if not lost:
        with suppress(driver().Error):
            connection.execute("ROLLBACK")
            return connection
    connection.close()
    return None
