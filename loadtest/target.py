"""The server under load: what it serves, its streams, and one client for all requests."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from loadtest.generator import Send
from loadtest.scenarios import Request, Shape

SETUP_IN_FLIGHT = 16
T = TypeVar("T")
JSON = {"content-type": "application/json"}


class TargetError(Exception):
    """The server cannot be used for this run; one sentence that says why."""


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine, as far as its text says.

    Example:
        >>> is_loopback("http://127.0.0.1:8000"), is_loopback("http://[::1]/"), is_loopback("http://10.0.0.1")
        (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_client(url: str, *, in_flight_max: int, timeout_s: float) -> httpx.AsyncClient:
    """A client with a kept connection for each request in flight; it heeds no proxy variables."""
    return httpx.AsyncClient(
        base_url=url,
        trust_env=False,
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=in_flight_max, max_keepalive_connections=in_flight_max),
    )


async def shape_of(client: httpx.AsyncClient, model: str) -> Shape:
    """What the model takes, asked from the server.

    Raises:
        TargetError: The server does not answer or has no such model.
    """
    info = await _ask(client, "GET", f"/v1/models/{model}")
    kinds = tuple(feature["kind"] for feature in info["features"])
    row = [0.0 if kind == "numeric" else "c0" for kind in kinds]
    example = await _ask(client, "POST", f"/v1/models/{model}/predict", {"inputs": [row]})
    return Shape.of(info, example["predictions"][0])


def new_names(count: int) -> list[str]:
    """Stream ids with a random prefix, so that a run never touches the streams of another."""
    prefix = f"load-{uuid.uuid4().hex[:8]}"
    return [f"{prefix}-{number}" for number in range(count)]


async def make_streams(client: httpx.AsyncClient, model: str, first: Mapping[str, Request | None]) -> None:
    """Create streams, each of which learns its first feedback, if it has one.

    Raises:
        TargetError: The server refused one.
    """

    async def one(name: str) -> None:
        await _ask(client, "PUT", f"/v1/streams/{name}", {"model": model})
        request = first[name]
        if request is not None:
            _check(await client.post(request.path, content=request.body, headers=JSON))

    await _for_each(list(first), one)


async def delete_streams(client: httpx.AsyncClient, names: Sequence[str]) -> None:
    """Leave nothing behind; a server that no longer answers is left as it is."""

    async def one(name: str) -> None:
        with suppress(httpx.TransportError):
            await client.delete(f"/v1/streams/{name}")

    await _for_each(names, one)


def sender(client: httpx.AsyncClient, requests: Sequence[Request], timeout_s: float) -> Send:
    """Sends the requests by number; how one ended is its status code, ``timeout``, or the transport error's name."""

    async def send(index: int) -> str:
        request = requests[index]
        try:
            async with asyncio.timeout(timeout_s):
                response = await client.post(request.path, content=request.body, headers=JSON)
        except (TimeoutError, httpx.TimeoutException):
            return "timeout"
        except httpx.TransportError as error:
            return type(error).__name__
        return str(response.status_code)

    return send


async def _for_each(items: Sequence[T], do: Callable[[T], Awaitable[None]]) -> None:
    """Do it for all, a few at once, then raise the first error if there was one."""
    places = asyncio.Semaphore(SETUP_IN_FLIGHT)

    async def bounded(item: T) -> None:
        async with places:
            await do(item)

    for outcome in await asyncio.gather(*(bounded(item) for item in items), return_exceptions=True):
        if outcome is not None:
            raise outcome


async def _ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    try:
        response = await client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise TargetError(
            f"{client.base_url} does not answer ({type(error).__name__}): is the server running?"
        ) from error
    return _check(response).json()


def _check(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        request = response.request
        raise TargetError(f"{request.method} {request.url.path} answered {response.status_code}: {response.text[:300]}")
    return response
