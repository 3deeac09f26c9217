"""The database that a command is about: that of its option, or of the settings."""

from service.commands.console import CommandError
from service.config import STORE_SCHEMES, load_settings
from service.store import Database


def stated_database(url: str | None) -> Database | None:
    """The database that is stated; ``None`` where none is, and the data directory is meant.

    Args:
        url: As given on the command line.

    Raises:
        CommandError: It is no address.
        ConfigurationError: The settings' is none.
    """
    found = url or load_settings(host="localhost").store_url
    if found is None:
        return None
    if not found.startswith(STORE_SCHEMES):
        raise CommandError("write the address of a database as postgresql://USER@HOST/DATABASE")
    return Database(found)
