"""The server under load: what it serves, its streams, and one client for all requests."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx

from loadtest.bodies import Request, Shape
from loadtest.generator import Send

SETUP_IN_FLIGHT = 16
SETUP_STREAMS = 100
"""Of one request; a batch of at most 100 rows each keeps it within the default limits."""
T = TypeVar("T")
JSON = {"content-type": "application/json"}


class TargetError(Exception):
    """The server cannot be used for this run; one sentence that says why."""


class Place(NamedTuple):
    """A server under load.

    Attributes:
        url: Where it is reached.
        cpu_seconds: What it has spent so far; NaN where nobody can tell.
        lasting: It outlives the run, which leaves no stream behind then.
        transport: How httpx reaches it, if not over a socket: an application in this process.
    """

    url: str
    cpu_seconds: Callable[[], float] = lambda: math.nan
    lasting: bool = True
    transport: httpx.AsyncBaseTransport | None = None

    @property
    def port(self) -> int:
        """For clients that know loopback alone.

        Raises:
            TargetError: It is not there.
        """
        if not is_loopback(self.url):
            raise TargetError(f"{self.url} is not this machine, which this scenario's client wants")
        return urlsplit(self.url).port or 80


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


def open_client(place: Place, *, in_flight_max: int, timeout_s: float) -> httpx.AsyncClient:
    """A client with a kept connection for each request in flight; it heeds no proxy variables."""
    return httpx.AsyncClient(
        base_url=place.url,
        transport=place.transport,
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


async def limit_of(client: httpx.AsyncClient, name: str) -> int:
    """A limit that the server has in force.

    Raises:
        TargetError: It does not answer.
    """
    return int((await _ask(client, "GET", "/v1/limits"))[name])


def new_names(count: int) -> list[str]:
    """Stream ids with a random prefix, so that a run never touches the streams of another."""
    prefix = f"load-{uuid.uuid4().hex[:8]}"
    return [f"{prefix}-{number}" for number in range(count)]


async def make_streams(
    client: httpx.AsyncClient, model: str, names: Sequence[str], lessons: Sequence[Mapping[str, Any]]
) -> None:
    """Create streams, by what they learn first if there is such, many in a request.

    Args:
        client: Of the server.
        model: What the streams are bound to.
        names: Their ids.
        lessons: Items of ``POST /v1/feedback``, one a stream; none at all leaves the streams as created.

    Raises:
        TargetError: The server refused one.
    """

    async def create(name: str) -> None:
        await _ask(client, "PUT", f"/v1/streams/{name}", {"model": model})

    async def teach(items: Sequence[Mapping[str, Any]]) -> None:
        answer = await _ask(client, "POST", "/v1/feedback", {"items": items})
        if refused := next((result for result in answer["results"] if "error" in result), None):
            raise TargetError(f"{refused['stream']} was not taught: {refused['error']['detail']}")

    if not lessons:
        await _for_each(names, create)
        return
    for start in range(0, len(lessons), SETUP_STREAMS):  # one after the other: more than that may be too many at once
        await teach(lessons[start : start + SETUP_STREAMS])


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
