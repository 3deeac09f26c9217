"""In front of everything: a request needs a key that may do what it asks, and has a share that it may use."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import Settings
from service.errors import ForbiddenError, SaturatedError, ServiceError, UnauthorizedError
from service.json_body import header
from service.keys import Key, KeyRing
from service.problems import problem
from service.routes.context import TENANT
from service.scopes import scope_of

BURST_SECONDS = 1.0
"""So much of a share may be used at once."""
SCHEME = "bearer"


@dataclass(slots=True)
class _Share:
    """What is left of a rate: a bucket that fills with time."""

    rate: float
    left: float
    at: float

    def wait(self, now: float, need: float) -> float:
        """Seconds until so much of it is there; 0 where it is."""
        full = max(self.rate * BURST_SECONDS, 1.0)
        self.left = min(self.left + (now - self.at) * self.rate, full)
        self.at = now
        return max(need - self.left, 0.0) / self.rate


class Guard:
    """Lets through what a key may do.

    Without any key in the settings and in the data directory everything is let through, as the tenant ``default``.

    Args:
        settings: ``metrics_open`` and the shares of keys that have none of their own.
        keys: Those that are good.
        clock: Seconds that only go forward.
    """

    def __init__(self, settings: Settings, keys: KeyRing, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._metrics_open = settings.metrics_open
        self._requests, self._bytes = settings.key_requests_per_second, settings.key_bytes_per_second
        self._shares: dict[tuple[str, str], _Share] = {}

    def admit(self, scope: Scope, receive: Receive) -> Receive:
        """Let a request through: the scope is told whose it is, and what it sends is counted.

        Raises:
            UnauthorizedError: It has no key that is good.
            ForbiddenError: The key may not do this.
            SaturatedError: The key has used up its share.
        """
        if not self._keys.in_force:
            return receive
        key = self._key(scope)
        if key is None:
            return receive
        scope[TENANT] = key.tenant
        return self._measured(key, receive)

    def _key(self, scope: Scope) -> Key | None:
        """The key of a request; ``None`` where everybody may ask this."""
        asked = scope_of(scope["method"], scope["path"])
        if asked == "open" or (asked == "metrics" and self._metrics_open):
            return None
        scheme, _, text = header(scope, b"authorization").partition(" ")
        key = self._keys.key_of(text.strip()) if scheme.lower() == SCHEME else None
        if key is None:
            raise UnauthorizedError(
                "Send a key: the header Authorization: Bearer KEY; acclimate keys create makes one."
            )
        if asked != "metrics" and not key.may(asked):
            raise ForbiddenError(f"This needs a key of scope {asked}, yours has {key.scope}: ask for another key.")
        self._charge(key)
        return key

    def _charge(self, key: Key) -> None:
        now = self._clock()
        requests = self._share(key, "requests", key.requests_per_second or self._requests)
        size = self._share(key, "bytes", self._byte_rate(key))
        waits = (requests.wait(now, 1.0) if requests else 0.0, size.wait(now, 1.0) if size else 0.0)
        if max(waits) > 0:
            seconds = math.ceil(max(waits))
            raise SaturatedError(f"This key has used its share: repeat after {seconds} s.", retry_after_s=seconds)
        if requests is not None:
            requests.left -= 1

    def _share(self, key: Key, kind: str, rate: float) -> _Share | None:
        """What is left of a key's share; ``None`` where it has any."""
        if not rate:
            return None
        share = self._shares.get((key.id, kind))
        if share is None or share.rate != rate:
            share = self._shares[key.id, kind] = _Share(rate, max(rate * BURST_SECONDS, 1.0), self._clock())
        return share

    def _byte_rate(self, key: Key) -> float:
        return key.bytes_per_second or self._bytes

    def _measured(self, key: Key, receive: Receive) -> Receive:
        """The body, whose bytes count against the key's share: one request may overdraw it, the next has to wait."""
        share = self._share(key, "bytes", self._byte_rate(key))
        if share is None:
            return receive

        async def counted() -> Message:
            message = await receive()
            share.left -= len(message.get("body", b""))
            return message

        return counted


class GuardMiddleware:
    """The guard in front of an application, for requests that do not come by the hot path."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http":
            try:
                receive = self._guard.admit(scope, receive)
            except ServiceError as error:
                await problem(error, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)
