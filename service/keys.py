"""API keys: who may ask for what. They are kept hashed in one file, which is read again when it changes.

A key is ``acl_ID_SECRET``. Of the secret, 256 random bits, only SHA-256 is kept: what nobody can guess needs no slow
hash.
"""

import fcntl
import hmac
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any, Literal, NamedTuple, TypeAlias

import orjson

from service.errors import ConfigurationError

Scope: TypeAlias = Literal["predict", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "feedback", "admin")
"""Each may do what those before it may."""
FILE = "keys.json"
PREFIX = "acl_"
DEFAULT_TENANT = "default"
FORMAT_VERSION = 1
LOOK_SECONDS = 0.5
"""How often the file is looked at, at most: a revoked key is refused after this."""
BOOTSTRAP = "bootstrap"
"""Id of the key that the settings give."""
BOOTSTRAP_CHARS_MIN = 16
_MODE = 0o600


class Key(NamedTuple):
    """A key as it is kept.

    Attributes:
        id: Names it; no secret.
        tenant: Whose streams it reaches.
        scope: The most that it may do.
        digest: SHA-256 of its secret, in hexadecimal.
        created_at: Epoch seconds.
        requests_per_second: How many it may send; 0: the setting.
        bytes_per_second: How large they may be; 0: the setting.
        note: What it is for.
        revoked_at: Epoch seconds; ``None`` while it is good.
    """

    id: str
    tenant: str
    scope: Scope
    digest: str
    created_at: float
    requests_per_second: float = 0.0
    bytes_per_second: float = 0.0
    note: str = ""
    revoked_at: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it may do what asks for a scope."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)


def read_keys(file: Path) -> list[Key]:
    """All keys of a file, revoked ones too; none where there is no file.

    Raises:
        ConfigurationError: It cannot be read, or is none of ours.
    """
    try:
        stated: dict[str, Any] = orjson.loads(file.read_bytes())
        if stated["format_version"] != FORMAT_VERSION:
            raise ConfigurationError(f"{file} has another format: use the version of acclimate that wrote it")
        return [Key(**key) for key in stated["keys"]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file} cannot be read ({error}): restore it from a backup") from error


def has_keys(data_dir: Path) -> bool:
    """Whether a data directory has a key that is good. Raises ConfigurationError."""
    return any(key.revoked_at is None for key in read_keys(data_dir / FILE))


def create_key(
    data_dir: Path,
    tenant: str,
    scope: Scope,
    *,
    requests_per_second: float = 0.0,
    bytes_per_second: float = 0.0,
    note: str = "",
    clock: Callable[[], float] = time.time,
) -> tuple[Key, str]:
    """Add a key: it, and the whole of it, which is told this once. Raises ConfigurationError."""
    name, secret = token_hex(6), token_urlsafe(32)
    key = Key(name, tenant, scope, _digest(secret), clock(), requests_per_second, bytes_per_second, note)
    with _changing(data_dir) as keys:
        keys.append(key)
    return key, f"{PREFIX}{name}_{secret}"


def revoke_key(data_dir: Path, name: str, *, clock: Callable[[], float] = time.time) -> Key | None:
    """Make a key good for nothing; ``None`` where there is none of that id. Raises ConfigurationError."""
    with _changing(data_dir) as keys:
        for place, key in enumerate(keys):
            if key.id == name:
                keys[place] = key if key.revoked_at is not None else key._replace(revoked_at=clock())
                return keys[place]
    return None


def draw_bootstrap_key(file: Path) -> bool:
    """Write a random key into a file that its owner alone can read, whole or not at all; false if it is there already.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    new = file.with_name(f"{file.name}.{token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            with os.fdopen(descriptor, "w") as written:
                written.write(f"{PREFIX}{BOOTSTRAP}_{token_urlsafe(32)}\n")
                written.flush()
                os.fsync(written.fileno())
            return _linked(new, file)
        finally:
            new.unlink()
    except OSError as error:
        raise ConfigurationError(f"no key can be written to {file} ({error.strerror}): name another file") from error


def _linked(new: Path, file: Path) -> bool:
    """Give a file its name, never over one that somebody uses."""
    try:
        os.link(new, file)
    except FileExistsError:
        return False
    return True


@contextmanager
def _changing(data_dir: Path) -> Iterator[list[Key]]:
    """The keys of a directory, to be changed by one process at a time, and replaced as a whole."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / f"{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to the data directory {data_dir} ({error.strerror}): choose another with --data-dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(data_dir / FILE)
        yield keys
        _write(data_dir, keys)
    finally:
        os.close(lock)


def _write(data_dir: Path, keys: Sequence[Key]) -> None:
    new = data_dir / f"{FILE}.new"
    stated = {"format_version": FORMAT_VERSION, "keys": [key._asdict() for key in keys]}
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(stated, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    new.replace(data_dir / FILE)
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class KeyRing:
    """The keys that are good now.

    Args:
        data_dir: Where the file is.
        bootstrap: A key of the settings: admin of the default tenant.
        clock: Seconds that only go forward.

    Raises:
        ConfigurationError: The file cannot be read, or the bootstrap key is too short.
    """

    def __init__(
        self, data_dir: Path, bootstrap: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if bootstrap is not None and len(bootstrap) < BOOTSTRAP_CHARS_MIN:
            raise ConfigurationError(
                f"the bootstrap key is shorter than {BOOTSTRAP_CHARS_MIN} characters: choose another"
            )
        self._file = data_dir / FILE
        self._clock = clock
        self._bootstrap: Key | None = None
        if bootstrap is not None:
            self._bootstrap = Key(BOOTSTRAP, DEFAULT_TENANT, "admin", _digest(bootstrap), 0.0)
        self._stamp = self._stamped()
        self._keys = {key.id: key for key in read_keys(self._file)}
        self._looked = clock()

    @property
    def in_force(self) -> bool:
        """Whether requests need a key: there is one, or was."""
        self._look()
        return self._bootstrap is not None or bool(self._keys)

    def key_of(self, text: str) -> Key | None:
        """The good key that this is the whole of; ``None`` where it is none."""
        self._look()
        name, _, secret = text.removeprefix(PREFIX).partition("_")
        key = self._keys.get(name) if text.startswith(PREFIX) else None
        if key is not None and hmac.compare_digest(key.digest, _digest(secret)):
            return key if key.revoked_at is None else None
        if self._bootstrap is not None and hmac.compare_digest(self._bootstrap.digest, _digest(text)):
            return self._bootstrap
        return None

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        stamp = self._stamped()
        if stamp != self._stamp:
            try:
                self._keys = {key.id: key for key in read_keys(self._file)}
            except ConfigurationError:
                return  # what was good stays so until the file can be read
            self._stamp = stamp

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
