"""psycopg, the extra ``[postgres]``: loaded when a database is first asked for, so that others pay nothing for it."""

import logging
import re
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any

from service.errors import ConfigurationError, ServiceError, StoreFullError, UnavailableError
from service.store.base import DamagedError

SCHEMA = "acclimate"
"""Schema of the default tenant; that of another has its name behind."""
NAME_BYTES_MAX = 63
"""Of a name in PostgreSQL."""
_DISK_FULL = "53100"
_GONE = ("25006", "25P03", "57P01", "57P02", "57P03", "57P05")
"""Of a connection that is of no use: the server is only read, is going or coming, or has ended the session."""
_DAMAGED = ("XX001", "XX002")
_AGAIN = ("40001", "40P01")


@dataclass(frozen=True)
class Database:
    """Where a store in PostgreSQL is.

    Attributes:
        url: ``postgresql://…`` as libpq reads it; may hold a password, and is never shown.
        schema: Of the store's tables.
        tenant: Whose it is.
    """

    url: str = field(repr=False)
    schema: str = SCHEMA
    tenant: str = "default"

    def of_tenant(self, tenant: str) -> "Database":
        """The store of a tenant, given that of the default one.

        Example:
            >>> Database("postgresql://db").of_tenant("north").schema
            'acclimate_north'
        """
        if tenant == self.tenant:
            return self
        name = f"{self.schema}_{tenant}"
        if len(name) > NAME_BYTES_MAX:
            name = f"{self.schema}_{blake2b(tenant.encode(), digest_size=16).hexdigest()}"
        return Database(self.url, name, tenant)

    def place(self) -> str:
        """Host, port and database, for people; no user and no password.

        Example:
            >>> Database("postgresql://me:secret@db.example:5433/streams").place()
            'db.example:5433/streams'
        """
        found = re.match(r"postgres(?:ql)?://(?:[^@/?]*@)?([^?]*)", self.url)
        return (found.group(1).strip("/") if found else "") or "the local server"


def quoted(name: str) -> str:
    """A name as SQL writes it.

    Example:
        >>> quoted('a"b')
        '"a""b"'
    """
    return '"{}"'.format(name.replace('"', '""'))


@cache
def driver() -> Any:
    """The module psycopg.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import psycopg  # noqa: PLC0415 - an optional extra, loaded where it is needed
    except ImportError as error:
        raise ConfigurationError(
            "a store in PostgreSQL needs psycopg: install it with pip install 'acclimate[postgres]'"
        ) from error
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # its warnings repeat what is raised, with what rows hold
    return psycopg


def is_lost(error: Exception, connection: Any) -> bool:
    """Whether the connection is of no use any more: it broke, its session ended, or its server is only read now."""
    return bool(connection.closed or connection.broken or getattr(error, "sqlstate", None) in _GONE)


def may_repeat(error: Exception) -> bool:
    """Whether the server undid the transaction so that another could go on: the same may succeed at once."""
    return getattr(error, "sqlstate", None) in _AGAIN


def translate(error: Exception) -> ServiceError:
    """What a failed statement means to a client. Whatever it is, its transaction was rolled back."""
    state = getattr(error, "sqlstate", None)
    if state == _DISK_FULL:
        return StoreFullError("The disk of the database is full: nothing was learned, free some space and repeat.")
    reason = first_line(error)
    if state in _DAMAGED:
        return DamagedError(None, None, reason)
    return UnavailableError(f"The store failed ({reason}): nothing was changed, repeat later.")


def first_line(error: BaseException) -> str:
    """What an error of the server or of libpq says, without the statement that it quotes."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
