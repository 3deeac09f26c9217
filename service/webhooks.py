"""Webhooks: events are told to those who asked, signed, and told again until they are heard.

The events of the store are the outbox: they are committed with what they tell of, and each webhook keeps the id of the
last one that it has heard. A call is made at least once, in the order of events, and never holds up anything else.

Reference:
    Standard Webhooks 1.0 (github.com/standard-webhooks/standard-webhooks): headers, signature, secrets.
"""

import asyncio
import binascii
import hashlib
import hmac
import math
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace as replaced
from random import Random
from secrets import token_bytes, token_hex
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import orjson
import structlog

from service.addresses import Resolve, is_public, resolve
from service.bells import Bells
from service.errors import ConflictError, InvalidError, NotFoundError
from service.metrics import Metrics
from service.store import Store, StoredEvent, Webhook
from service.threads import Threads
from service.types import WebhookInfo
from service.views import event_of, moment

CALL_SECONDS = 10.0
"""How long one call may take."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 3_600.0
"""Before the second call; each further wait is twice as long, up to the longest; a random part of it is waited."""
GIVE_UP_SECONDS = 3 * 86_400.0
"""An event that nobody has heard for so long is told no more."""
PAGE_EVENTS = 100
SECRET_BYTES = 32
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
URL_CHARS_MAX = 2_000
PREFIX = "whsec_"
GONE = 410
_log = structlog.get_logger("acclimate.webhooks")


class Calls(NamedTuple):
    """How calls are made.

    Attributes:
        client: Follows no redirect, heeds no proxy.
        resolve: Finds addresses.
        private: Whether private addresses may be called.
        sleep: Waits.
        draw: Randomness of the waits.
    """

    client: httpx.AsyncClient
    resolve: Resolve
    private: bool
    sleep: Callable[[float], Awaitable[None]]
    draw: Random

    @classmethod
    def over_network(cls, *, private: bool) -> "Calls":
        """As they are made where nothing else is said."""
        client = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=CALL_SECONDS)
        return cls(client, resolve, private, asyncio.sleep, Random())  # noqa: S311 - it spreads waits


class Webhooks:
    """Those of a store. Belongs to the event loop.

    Args:
        store: Where they and the events are.
        bells: Ring when there are events.
        calls: How calls are made.
        threads: Where the store is asked.
        clock: Epoch seconds.
        metrics: Told of calls.
        webhooks_max: Most of them.
    """

    def __init__(
        self,
        store: Store,
        bells: Bells,
        calls: Calls,
        *,
        threads: Threads,
        clock: Callable[[], float],
        metrics: Metrics,
        webhooks_max: int,
    ) -> None:
        self._store = store
        self._bells = bells
        self._calls = calls
        self._threads = threads
        self._clock = clock
        self._max = webhooks_max
        self._count = {name: metrics.webhook_calls.labels(name) for name in ("heard", "failed", "given_up", "gone")}
        self._leads = False
        self._changing = asyncio.Lock()
        self._kept: dict[str, Webhook] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Go on with those of the store, or leave that to the process that tells them for all."""
        await self.follow()

    async def follow(self) -> None:
        """Hear of those that other processes have added or deleted, and begin or end telling them.

        One process tells them for all that share a store. Where it is cut off from the store another begins while it
        may still be calling: a call is made at least once.
        """
        async with self._changing:
            await self._follow()

    async def _follow(self) -> None:
        leads = await self._threads.write(self._store.lead)
        kept = {webhook.id: webhook for webhook in await self._threads.load(self._store.webhooks)}
        began, self._leads = leads and not self._leads, leads
        for name in list(self._kept):
            if name not in kept or not leads or began:
                await self._end(name)
        for name in set(self._kept) - set(kept):
            del self._kept[name]
        for name, webhook in kept.items():
            if name not in self._tasks or not leads:
                self._begin(webhook)

    async def close(self) -> None:
        """Stop; what was not heard is told after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._calls.client.aclose()

    def infos(self) -> list[WebhookInfo]:
        """All of them, by id, without their secrets."""
        return [_info(self._kept[name]) for name in sorted(self._kept)]

    def info(self, name: str) -> WebhookInfo:
        """One of them. Raises NotFoundError."""
        return _info(self._get(name))

    async def add(self, url: str, kinds: Sequence[str], secret: str | None, name: str | None = None) -> WebhookInfo:
        """Tell a URL of all later events of some kinds.

        Args:
            url: http or https.
            kinds: Of the events.
            secret: ``whsec_`` and base64 of 24 to 64 bytes; one is drawn if it is left out.
            name: Its id, where another worker has given it one.

        Returns:
            It, with its secret.

        Raises:
            InvalidError: The URL may not be called, or the secret is none.
            ConflictError: There are as many as there may be.
        """
        if len(self._kept) >= self._max and name not in self._kept:
            raise ConflictError(f"There are {len(self._kept)} webhooks, no more fit: delete one.")
        key = token_bytes(SECRET_BYTES) if secret is None else _key(secret)
        try:
            await self._address(url)
        except (ValueError, OSError) as error:
            raise InvalidError.at(("url",), str(error) or "its host is not found") from error
        last = await self._threads.load(self._store.last_event)
        webhook = Webhook(name or token_hex(8), url, tuple(dict.fromkeys(kinds)), key, self._clock(), last)
        async with self._changing:
            await self._threads.write(lambda: self._store.put_webhook(webhook))
            await self._end(webhook.id)
            self._begin(webhook)
        return replaced(_info(webhook), secret=PREFIX + b64encode(key).decode())

    async def delete(self, name: str) -> None:
        """Tell it nothing more. Raises NotFoundError."""
        async with self._changing:
            self._get(name)
            await self._end(name)
            del self._kept[name]
            await self._threads.write(lambda: self._store.delete_webhook(name))

    def _get(self, name: str) -> Webhook:
        if name not in self._kept:
            raise NotFoundError("There is no webhook of that id: GET /v1/webhooks lists them.")
        return self._kept[name]

    def _begin(self, webhook: Webhook) -> None:
        self._kept[webhook.id] = webhook
        if not self._leads:
            return
        task = asyncio.get_running_loop().create_task(self._run(webhook.id), name=f"webhook {webhook.id}")
        self._tasks[webhook.id] = task

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self, webhook: Webhook) -> None:
        self._kept[webhook.id] = webhook
        # To the end, whoever stops this task: what was heard must not be told again by the next one.
        await asyncio.shield(self._threads.write(lambda: self._store.put_webhook(webhook, known=True)))

    async def _run(self, name: str) -> None:
        """Tell one of them event after event."""
        with self._bells.listening(None) as bell:
            while not self._kept[name].gone:
                try:
                    if not await self._tell_page(name):
                        await bell.wait()
                        bell.clear()
                except Exception as error:  # noqa: BLE001 - a store that fails now may answer later
                    _log.warning("webhook_waits", webhook=name, exc_info=error)
                    await self._calls.sleep(FIRST_WAIT_SECONDS)

    async def _tell_page(self, name: str) -> bool:
        """Tell what has happened since the last one heard; whether there was anything."""
        webhook = self._kept[name]
        page = await self._threads.load(lambda: self._store.all_events(webhook.cursor, PAGE_EVENTS))
        for stream, event in page:
            if event.kind in webhook.kinds and not await self._tell(webhook, stream, event):
                await self._keep(webhook._replace(gone=True))
                _log.warning("webhook_gone", webhook=name)
                return True
            webhook = webhook._replace(cursor=event.id)
            if event.kind in webhook.kinds:
                await self._keep(webhook)
        if page:
            await self._keep(webhook)
        return bool(page)

    async def _tell(self, webhook: Webhook, stream: str, event: StoredEvent) -> bool:
        """Call until it is heard, or given up; false where the owner says that nobody is there any more."""
        wait_s, began = FIRST_WAIT_SECONDS, self._clock()
        while True:
            try:
                status = await self._call(webhook, stream, event)
            except (httpx.HTTPError, OSError, ValueError, TimeoutError) as error:
                _log.info("webhook_failed", webhook=webhook.id, event_id=event.id, reason=type(error).__name__)
                status = 0
            if 200 <= status < 300:  # noqa: PLR2004 - a success
                self._count["heard"].inc()
                return True
            if status == GONE:
                self._count["gone"].inc()
                return False
            self._count["failed"].inc()
            if self._clock() - began >= GIVE_UP_SECONDS:
                self._count["given_up"].inc()
                _log.warning("webhook_gave_up", webhook=webhook.id, event_id=event.id, status=status)
                return True
            await self._calls.sleep(wait_s * (0.5 + self._calls.draw.random() / 2))
            wait_s = min(2 * wait_s, LONGEST_WAIT_SECONDS)

    async def _call(self, webhook: Webhook, stream: str, event: StoredEvent) -> int:
        """One call; its status."""
        told = {"type": f"stream.{event.kind}", "timestamp": moment(event.at), "data": event_of(stream, event)}
        body = orjson.dumps(told, option=orjson.OPT_UTC_Z)
        name, at = f"msg_{stream}_{event.id}", math.floor(self._clock())
        parts, address = urlsplit(webhook.url), await self._address(webhook.url)
        host = parts.hostname or ""
        # To the address that was looked at, so that a second answer of the name's server cannot lead elsewhere.
        url = httpx.URL(webhook.url).copy_with(host=address)
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "User-Agent": "acclimate",
            "webhook-id": name,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(webhook.secret, name, at, body),
        }
        async with asyncio.timeout(CALL_SECONDS):
            request = self._calls.client.build_request(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": host}
            )
            response = await self._calls.client.send(request, stream=True)
            await response.aclose()  # what it says is not read
        return response.status_code

    async def _address(self, url: str) -> str:
        """The address to call for a URL.

        Raises:
            ValueError: It may not be called; says why.
            OSError: Its host is not found.
        """
        if len(url) > URL_CHARS_MAX:
            raise ValueError(f"longer than {URL_CHARS_MAX} characters")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.fragment:
            raise ValueError("expected http:// or https:// with a host, without a user or a fragment")
        found = await self._calls.resolve(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        if not found or not (self._calls.private or all(map(is_public, found))):
            raise ValueError(
                "leads to an address inside, which is not called: give a public one, or set ACCLIMATE_WEBHOOK_PRIVATE=1"
            )
        return found[0]


def signature(secret: bytes, name: str, at: int, body: bytes) -> str:
    """What a call is signed with: HMAC-SHA256 of its id, its time (epoch seconds) and its body."""
    signed = hmac.new(secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + b64encode(signed).decode()


def _key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise InvalidError.at(
            ("secret",), f"expected {PREFIX} and base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
        )
    return key


def _info(webhook: Webhook) -> WebhookInfo:
    return WebhookInfo(webhook.id, webhook.url, list(webhook.kinds), moment(webhook.created_at), not webhook.gone)
