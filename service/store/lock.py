"""One process a data directory."""

import fcntl
import os
from pathlib import Path

from service.errors import ConfigurationError


class DirectoryLock:
    """Holds a data directory until closed; the kernel lets go of it when the process ends, however it ends.

    Raises:
        ConfigurationError: The directory cannot be made or written, or another process holds it.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to the data directory {data_dir} ({error.strerror}): choose another with --data-dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise ConfigurationError(
                f"the data directory {data_dir} is in use by another process (id {owner}): "
                "stop it, or choose another directory with --data-dir"
            ) from error
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except OSError as error:
            os.close(self._file)
            raise ConfigurationError(
                f"cannot write to the data directory {data_dir} ({error.strerror}): choose another with --data-dir"
            ) from error

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._file)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: a new file is lost in a power cut until its directory is synced."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
