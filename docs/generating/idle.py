"""A service that keeps nothing and serves no model: enough to be described."""

from pathlib import Path

from service.config import Settings
from service.store import MemoryStore
from service.streams import Streams

SETTINGS = Settings(data_dir=Path("unused"))
"""The defaults; nothing is ever written there."""


def nothing() -> Streams:
    """No streams, over memory."""
    return Streams(SETTINGS, MemoryStore(), {}, lambda: 0.0)
