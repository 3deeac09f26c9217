"""Requests that carry a key: done once, and answered alike when they are repeated (``Idempotency-Key``)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from service.errors import ConflictError, InvalidError
from service.hot import DAY_SECONDS
from service.store import Done, Once
from service.types import Learned
from service.views import learned_body

HEADER = "Idempotency-Key"
KEPT_SECONDS = DAY_SECONDS
"""How long an answer is kept for a repeat."""
KEY_CHARS_MAX = 255
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY


class Asked(NamedTuple):
    """A request with a key.

    Attributes:
        key: The client's.
        digest: Of all that the request asks for, in hexadecimal.
        with_predictions: Whether the answer has the predictions that were made.
    """

    key: str
    digest: str
    with_predictions: bool

    def answer(self, value: Learned) -> bytes:
        """The answer's JSON."""
        return orjson.dumps(learned_body(value, with_predictions=self.with_predictions), option=_OPTIONS)

    def once(self, learned: Callable[[Done], Learned], now: float) -> Once:
        """The answer as it is kept with the commit; ``now`` is in epoch seconds."""
        digest = bytes.fromhex(self.digest)
        return Once(self.key, digest, lambda done: self.answer(learned(done)), now, now - KEPT_SECONDS)


def asked_once(key: str, body: Any, *, with_predictions: bool) -> Asked:
    """A request by its key and its decoded body.

    Raises:
        InvalidError: The key is empty, too long, or more than visible ASCII.
    """
    if not (0 < len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable() and " " not in key):
        raise InvalidError.at(("header", HEADER), f"expected 1 to {KEY_CHARS_MAX} visible ASCII characters")
    text = orjson.dumps([with_predictions, body], option=orjson.OPT_SORT_KEYS)
    return Asked(key, blake2b(text, digest_size=16).hexdigest(), with_predictions)


class Turns:
    """Which keys are being worked on."""

    def __init__(self) -> None:
        self._running: set[tuple[str, str]] = set()

    @contextmanager
    def turn(self, stream: str, key: str) -> Iterator[None]:
        """Within, nobody else works on a stream's key.

        Raises:
            ConflictError: Somebody does.
        """
        if (stream, key) in self._running:
            raise ConflictError(f"The first request with this {HEADER} is still running: repeat it in a second.")
        self._running.add((stream, key))
        try:
            yield
        finally:
            self._running.discard((stream, key))
