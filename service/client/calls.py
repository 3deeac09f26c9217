"""Requests and what their answers mean, without sending anything: what both clients share.

A ``Call`` is one request. How it is tried again is a generator that is told what happened and says what to do next, so
that the client that blocks and the one that does not are driven by the same code.
"""

import json
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from service.client.errors import ApiError, UnreachableError, error_of

T = TypeVar("T")
JSON, NDJSON, BINARY = "application/json", "application/x-ndjson", "application/octet-stream"
RETRIED = frozenset({429, 502, 503, 504})
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 30.0
STILL_RUNNING = 409


class Reply(NamedTuple):
    """An answer: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body decoded; ``None`` where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Attributes:
        method: HTTP method.
        path: Below the service's URL.
        read: Makes the result from the answer.
        params: Of the query; those that are ``None`` are left out.
        content: The body.
        headers: Beside those of all requests.
        safe: Whether it may be sent again when it is not known what became of it.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    safe: bool = True

    @property
    def query(self) -> dict[str, str]:
        """The parameters as they are sent."""
        return {name: str(value) for name, value in self.params.items() if value is not None}


class Wait(NamedTuple):
    """Wait so long, then send the request again."""

    seconds: float


Step: TypeAlias = "Call[Any] | Wait"
Seen: TypeAlias = "Reply | UnreachableError | None"


def attempts(call: Call[T], retries: int, draw: Random) -> Generator[Step, Seen, T]:
    """Try a call until it is answered: yields what to do, is sent what came of it.

    Tried again is what was refused for now (429, 503 and the like), and what got no answer, if that is safe. Waits
    double, a random part of them is waited, and never less than the service asks for.

    Raises:
        ApiError: The answer is an error.
        UnreachableError: There was none.
    """
    wait_s = FIRST_WAIT_S
    for left in range(retries, -1, -1):
        seen = yield call
        if isinstance(seen, Reply):
            if seen.status < 400:  # noqa: PLR2004 - the errors begin there
                return call.read(seen)
            error: ApiError | UnreachableError = _error(seen)
            running = (
                seen.status == STILL_RUNNING and "Idempotency-Key" in call.headers and "still running" in str(error)
            )
            again = seen.status in RETRIED or running
        elif isinstance(seen, UnreachableError):
            error, again = seen, call.safe
        else:
            raise TypeError("a request was not answered")
        if not again or not left:
            raise error
        asked_s = error.retry_after_s if isinstance(error, ApiError) and error.retry_after_s is not None else 0.0
        yield Wait(max(asked_s, draw.uniform(0.0, wait_s)))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    raise AssertionError("unreachable")


def body_of(value: Any) -> tuple[bytes, dict[str, str]]:
    """A JSON body and its header. Raises ValueError for NaN and infinities, which JSON does not have."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), {"Content-Type": JSON}


def new_key() -> str:
    """A name for a request or an upload that nobody else uses."""
    return uuid.uuid4().hex


def _error(reply: Reply) -> ApiError:
    return error_of(reply.status, reply.json(), reply.headers.get("retry-after"), reply.headers.get("x-request-id", ""))
