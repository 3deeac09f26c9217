"""Compressed request bodies."""

import zlib

from service.errors import MalformedError, TooLargeError, UnsupportedMediaTypeError

ENCODINGS = ("gzip", "deflate")
_EITHER = zlib.MAX_WBITS | 32
"""Either format: the header of the data says which."""


def inflate(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """A body as it was before its ``Content-Encoding``.

    Raises:
        UnsupportedMediaTypeError: Neither gzip nor deflate.
        TooLargeError: It would be longer than ``bytes_max``; no more than that is ever made.
        MalformedError: It is not so encoded, or cut short.

    Example:
        >>> inflate(zlib.compress(b"text"), "deflate", 100)
        b'text'
    """
    if encoding not in ENCODINGS:
        raise UnsupportedMediaTypeError(f"Bodies are read as they are, or as {' or '.join(ENCODINGS)}.")
    reader = zlib.decompressobj(_EITHER)
    try:
        found = reader.decompress(body, bytes_max + 1)
    except zlib.error:
        raise MalformedError(f"The body cannot be read as {encoding}.") from None
    if len(found) > bytes_max:
        raise TooLargeError(f"The body is larger than {bytes_max} bytes: send it in parts.")
    if not reader.eof or reader.unused_data:
        raise MalformedError(f"The body is not one whole {encoding} stream.")
    return found
