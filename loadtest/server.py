"""A server of one's own: a child process on a free loopback port with a data directory that lives as long as it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

STARTUP_S = 60.0
SHUTDOWN_S = 40.0
_POLL_S = 0.05


class ServerError(Exception):
    """The server did not start or did not end as promised; the message carries the end of its log."""


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(port: int, data_dir: Path, arguments: Sequence[str] = ()) -> list[str]:
    """``acclimate serve`` of the environment that runs this process."""
    executable = str(Path(sys.executable).with_name("acclimate"))
    return [executable, "serve", "--port", str(port), "--data-dir", str(data_dir), *arguments]


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when ``/readyz`` answers 200.

    Raises:
        ServerError: The process ended, or was not ready within ``STARTUP_S``.
    """
    deadline = time.monotonic() + STARTUP_S
    with httpx.Client(base_url=url, trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(f"the server ended with code {process.returncode} before it was ready:\n{_tail(log)}")
            try:
                if client.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(_POLL_S)
    raise ServerError(f"the server was not ready after {STARTUP_S:g} s:\n{_tail(log)}")


class Server(NamedTuple):
    """A server that runs: where it is reached, and its process."""

    url: str
    pid: int

    @property
    def port(self) -> int:
        """On the loopback address."""
        return int(self.url.rpartition(":")[2])

    def processes(self) -> list[int]:
        """It and its workers."""
        return [self.pid, *(int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def cpu_seconds(self) -> float:
        """What its processes have spent so far, user and system (proc(5))."""
        fields = [_stat(pid) for pid in self.processes()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory that its processes have now; what they share counts for each."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) for pid in self.processes()]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    """Fields of a process's ``stat`` after its name."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()


@contextmanager
def running(arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """A ready server's URL; as ``serving``."""
    with serving(arguments, environ) as server:
        yield server.url


@contextmanager
def serving(
    arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None, data_dir: Path | None = None
) -> Iterator[Server]:
    """A ready server; on leaving it is sent SIGTERM and must end with code 0.

    Args:
        arguments: Further words for ``acclimate serve``.
        environ: Further variables.
        data_dir: Its data directory; one of its own if left out.

    Raises:
        ServerError: It did not start, or it did not end with code 0 within ``SHUTDOWN_S``.
    """
    with tempfile.TemporaryDirectory(prefix="acclimate-loadtest-") as directory:
        port, log = free_port(), Path(directory) / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  our own program with our own words
                command(port, data_dir or Path(directory) / "data", arguments),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, process, log)
            yield Server(url, process.pid)
            process.send_signal(signal.SIGTERM)
            code = process.wait(SHUTDOWN_S)
            if code != 0:
                raise ServerError(f"the server ended with code {code} after SIGTERM:\n{_tail(log)}")
        except subprocess.TimeoutExpired:
            raise ServerError(f"the server did not end within {SHUTDOWN_S:g} s of SIGTERM:\n{_tail(log)}") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
