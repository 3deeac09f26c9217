"""What can go wrong for a client.

AcclimateError
├── UnreachableError           no answer: refused, cut off, timed out, after all retries
├── UploadStoppedError         a row of an upload was refused; ``offset`` rows before it are learned
└── ApiError                   an answer that is an error; ``status`` and the problem's ``detail``
    ├── BadRequestError    400
    ├── UnauthorizedError  401
    ├── ForbiddenError     403
    ├── NotFoundError      404
    ├── ConflictError      409
    ├── TooLargeError      413
    ├── InvalidError       422  ``errors`` names each wrong place
    ├── SaturatedError     429  ``retry_after_s``
    └── ServerError        5xx
        ├── UnavailableError  503
        └── DiskFullError     507
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One wrong place in a request."""

    loc: tuple[str | int, ...]
    msg: str


class AcclimateError(Exception):
    """Base of all errors of this client."""


class UnreachableError(AcclimateError):
    """The service could not be reached, or did not answer to the end."""


class ApiError(AcclimateError):
    """The service answered with an error.

    Attributes:
        status: HTTP status code.
        detail: One sentence: what is wrong, and what to do.
        errors: The wrong places, for 422.
        retry_after_s: Seconds to wait, where the service says so.
        request_id: Under which the service's log has the request.
    """

    status_of_kind: ClassVar[int] = 0

    def __init__(
        self,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class BadRequestError(ApiError):
    """A request that cannot be read."""

    status_of_kind = 400


class UnauthorizedError(ApiError):
    """No key, or none that is good."""

    status_of_kind = 401


class ForbiddenError(ApiError):
    """The key may not do this."""

    status_of_kind = 403


class NotFoundError(ApiError):
    """No such stream, model, webhook or path."""

    status_of_kind = 404


class ConflictError(ApiError):
    """The request contradicts what is stored."""

    status_of_kind = 409


class TooLargeError(ApiError):
    """The body is larger than the service takes."""

    status_of_kind = 413


class InvalidError(ApiError):
    """A request that can be read but not taken; ``errors`` names each wrong place."""

    status_of_kind = 422


class SaturatedError(ApiError):
    """Too much work is waiting there, or the key has used its share."""

    status_of_kind = 429


class ServerError(ApiError):
    """Something is wrong on the other side."""


class UnavailableError(ServerError):
    """Starting, stopping, or the store does not answer."""

    status_of_kind = 503


class DiskFullError(ServerError):
    """The service's disk is full: nothing was learned."""

    status_of_kind = 507


class UploadStoppedError(AcclimateError):
    """A row of an upload was refused: its batch was not taken, earlier rows were.

    Attributes:
        offset: So many rows, from the upload's start, are learned.
        error: Why the next ones are not.
    """

    def __init__(self, offset: int, error: ApiError) -> None:
        super().__init__(f"after {offset} rows: {error}")
        self.offset = offset
        self.error = error


_KINDS: Mapping[int, type[ApiError]] = {
    kind.status_of_kind: kind
    for kind in (
        *(BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, ConflictError),
        *(TooLargeError, InvalidError, SaturatedError, UnavailableError, DiskFullError),
    )
}


def error_of(status: int, problem: Any, retry_after: str | None = None, request_id: str = "") -> ApiError:
    """The error that an answer tells; ``problem`` is its body, decoded if it was JSON."""
    stated = problem if isinstance(problem, dict) else {}
    detail = str(stated.get("detail") or stated.get("title") or "the service gave no reason")
    errors = tuple(FieldError(tuple(each["loc"]), str(each["msg"])) for each in stated.get("errors", ()))
    kind = _KINDS.get(status, ServerError if status >= 500 else ApiError)  # noqa: PLR2004 - the servers' statuses
    wait_s = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return kind(status, detail, errors, wait_s, request_id)
