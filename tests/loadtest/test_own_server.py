"""Starting a server of one's own fails with what the server had to say."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.server import ServerError, command, free_port, wait_ready


def test_a_server_that_ends_early_is_reported_with_its_log(tmp_path: Path) -> None:
    """The exit code and the end of the log are in the message, so that nobody has to look for them."""
    log = tmp_path / "server.log"
    log.write_text("line\n" * 100 + "acclimate: the disk is on fire\n")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        process.wait()
        with pytest.raises(ServerError, match=r"code 3(.|\n)*the disk is on fire") as raised:
            wait_ready("http://127.0.0.1:9", process, log)
    assert str(raised.value).count("line") == 19


def test_the_server_is_this_environments_own(tmp_path: Path) -> None:
    """Load never goes to another installation of the command; data goes where it is told."""
    words = command(1234, tmp_path, ["--threads", "1"])
    assert Path(words[0]).parent == Path(sys.executable).parent
    assert words[1:] == ["serve", "--port", "1234", "--data-dir", str(tmp_path), "--threads", "1"]


def test_free_ports_are_usable() -> None:
    """A port that was offered lies outside the reserved range."""
    assert free_port() >= 1024
