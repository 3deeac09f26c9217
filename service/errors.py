"""Errors of the service, and how each of them looks on the wire.

ServiceError
├── MalformedError            400  a request that cannot be read at all
├── UnauthorizedError         401  no key, or none that is good
├── ForbiddenError            403  the key may not do this
├── NotFoundError             404  no such stream, model or path
├── MethodNotAllowedError     405  the path exists, the method does not
├── ConflictError             409  the request contradicts what is stored
│   └── LearnedError               rows of an upload that were learned before
├── TooLargeError             413  a body above the limit
├── UnsupportedMediaTypeError 415  a content type that the route does not read
├── InvalidError              422  readable, but a field is wrong; ``errors`` names each place
├── SaturatedError            429  too much work is waiting
├── UnavailableError          503  starting, draining, or the store does not answer
└── StoreFullError            507  the disk is full

What a model refuses (``models.InputError``) becomes an ``InvalidError`` in one place, ``service.problems``.
``ConfigurationError`` stands apart: it ends the process before anything is served.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple


class FieldError(NamedTuple):
    """One wrong place in a request.

    Attributes:
        loc: Path from the body's root, for instance ``("inputs", 3, "temperature")``.
        msg: What is wrong there and what would be right; never the whole value.
    """

    loc: tuple[str | int, ...]
    msg: str


class ServiceError(Exception):
    """Base of the errors that a client may see.

    Attributes:
        status: HTTP status code.
        title: Short name of the kind of error, the same for every occurrence.
        detail: One clear sentence: what is wrong, and what to do.
        errors: The wrong places, for 422.
        retry_after_s: Whole seconds for the header ``Retry-After``, or None for no such header.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s


class MalformedError(ServiceError):
    """A request that cannot be read at all: not JSON, nested too deeply, contradicting headers."""

    status = 400
    title = "Malformed request"


class UnauthorizedError(ServiceError):
    """No key, or none that is good."""

    status = 401
    title = "Unauthorized"


class ForbiddenError(ServiceError):
    """The key may not do this."""

    status = 403
    title = "Forbidden"


class NotFoundError(ServiceError):
    """No such stream, model or path."""

    status = 404
    title = "Not found"


class MethodNotAllowedError(ServiceError):
    """The path exists, the method does not."""

    status = 405
    title = "Method not allowed"


class ConflictError(ServiceError):
    """The request contradicts what is stored, for instance a stream that is bound to another model."""

    status = 409
    title = "Conflict"


class LearnedError(ConflictError):
    """Rows of an upload that were learned before; nothing of the request was taken."""


class TooLargeError(ServiceError):
    """A body above the limit, counted as its bytes arrive."""

    status = 413
    title = "Content too large"


class UnsupportedMediaTypeError(ServiceError):
    """A content type that the route does not read."""

    status = 415
    title = "Unsupported media type"


class InvalidError(ServiceError):
    """A request that can be read but not taken; ``errors`` names each wrong place."""

    status = 422
    title = "Invalid request"

    @classmethod
    def at(cls, loc: tuple[str | int, ...], msg: str) -> "InvalidError":
        """The error of a single wrong place."""
        return cls(_sentence(loc, msg), (FieldError(loc, msg),))

    @classmethod
    def from_fields(cls, errors: Sequence[Any]) -> "InvalidError":
        """The same out of pydantic's error list, without the input that pydantic would repeat."""
        fields = tuple(FieldError(tuple(e["loc"]), e["msg"].removeprefix("Value error, ")) for e in errors)
        return cls(_sentence(*fields[0]), fields)


class SaturatedError(ServiceError):
    """Too much work is waiting; nothing of the request was taken."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), *, retry_after_s: int | None = 1) -> None:
        super().__init__(detail, errors, retry_after_s=retry_after_s)


class UnavailableError(ServiceError):
    """Starting, draining, or the store does not answer; nothing of the request was taken."""

    status = 503
    title = "Service unavailable"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), *, retry_after_s: int | None = 1) -> None:
        super().__init__(detail, errors, retry_after_s=retry_after_s)


class StoreFullError(ServiceError):
    """The disk is full: learning stops until there is room, predictions go on."""

    status = 507
    title = "Insufficient storage"


class ConfigurationError(Exception):
    """Settings that cannot be served with; one sentence for the terminal, never an HTTP answer."""


def place(loc: tuple[str | int, ...]) -> str:
    """A location as text.

    Example:
        >>> place(("inputs", 3, "temperature"))
        'inputs[3].temperature'
        >>> place(("inputs", 0, 2))
        'inputs[0][2]'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _sentence(loc: tuple[str | int, ...], msg: str) -> str:
    return f"{place(loc) or 'body'}: {msg}."
