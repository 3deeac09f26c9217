"""A PostgreSQL server of the tests' own: in a temporary directory, on a Unix socket, ended with the process."""

import atexit
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from unittest import SkipTest

import psycopg

from service.store import Database

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
WHY_NOT = "no PostgreSQL: install Debian's package postgresql, or set ACCLIMATE_TEST_POSTGRES to a URL"
_numbers = count()
_free: list[str] = []


class Server:
    """A server that can be stopped as if its machine had failed, and started again.

    Args:
        synced: Whether commits are synced; without, the examination is twice as fast.
    """

    def __init__(self, *, synced: bool) -> None:
        if not BINARIES:
            raise SkipTest(WHY_NOT)
        self._programs = BINARIES[-1].parent
        self._synced = synced
        self.directory = Path(tempfile.mkdtemp(prefix="acclimate-pg-"))
        atexit.register(self.remove)
        self._as: list[str] = []
        if os.geteuid() == 0:  # which it refuses
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        made = [*self._as, str(self._programs / "initdb"), "-D", str(self.directory / "data"), "-N", "-A", "trust"]
        subprocess.run([*made, "-E", "UTF8", "--locale=C", "-U", "tests"], check=True, capture_output=True, cwd="/")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"postgresql:///postgres?host={self.directory}&user=tests"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "max_connections": "40"}
        settings |= {
            "fsync": "on" if self._synced else "off",
            "shared_buffers": "32MB",
            "recovery_init_sync_method": "syncfs",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        program = [str(self._programs / "postgres"), "-D", str(self.directory / "data"), *arguments]
        ending = [*(self._as or ["setpriv"]), "--pdeathsig=QUIT"]  # with the tests, however they end
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen([*ending, *program], stdout=quiet, stderr=quiet, cwd="/")
        ready = [str(self._programs / "pg_isready"), "-q", "-h", str(self.directory), "-t", "1"]
        while subprocess.run(ready, check=False, capture_output=True).returncode:
            assert self._process.poll() is None, "the server ended while it started"

    def fail(self) -> None:
        """End it at once, without a word to anybody and without a checkpoint, as ``pg_ctl stop -m immediate`` does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def kill_session(self) -> None:
        """Kill -9 a session of a store's: the server ends all others and recovers by itself."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name='acclimate' ORDER BY xact_start NULLS LAST"
            ).fetchone()
        if row is not None:
            os.kill(row[0], signal.SIGKILL)

    def remove(self) -> None:
        """End it and remove its directory."""
        if self._process is not None and self._process.poll() is None:
            self.fail()
        shutil.rmtree(self.directory, ignore_errors=True)


@cache
def url() -> str:
    """The server of all tests that need one and leave it as it is. Raises SkipTest where there is none."""
    return os.environ.get("ACCLIMATE_TEST_POSTGRES") or Server(synced=False).url


def database() -> Database:
    """An empty store of its own in it, or one that is not made yet."""
    return Database(url(), _free.pop() if _free else f"test_{os.getpid()}_{next(_numbers)}")


def give_back(place: Database) -> None:
    """Empty a store for the next test, which takes a tenth of the time to make one."""
    with connected(place) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname=%s AND tablename NOT IN ('layout', 'numbers')",
            (place.schema,),
        ).fetchall()
        for (name,) in names:
            connection.execute(f"DELETE FROM {name}".encode())
        connection.execute("UPDATE numbers SET last=0")
    _free.append(place.schema)


@contextmanager
def own_database() -> Iterator[str]:
    """The address of an empty database, for services choose their schemas themselves."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0".encode())
        try:
            yield url_of(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def url_of(name: str) -> str:
    """The address of another database of the server."""
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", url())


@contextmanager
def connected(place: Database) -> Iterator[psycopg.Connection]:
    """A plain connection to a store's tables, every statement of which commits by itself."""
    options = f'-c search_path="{place.schema}"'
    with psycopg.connect(place.url, options=options, autocommit=True) as connection:
        yield connection


def drop(place: Database) -> None:
    """Remove a store and those of its tenants, which are not as others are any more."""
    with connected(place) as connection:
        found = connection.execute(
            "SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname=%s OR starts_with(nspname, %s)",
            (place.schema, f"{place.schema}_"),
        ).fetchall()
        for (name,) in found:
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
