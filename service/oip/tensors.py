"""Tensors of the protocol: JSON data, flat or nested, and the binary form, both ways. Pure functions, hostile input.

Reference:
    Open Inference Protocol, "Tensor Data"; Triton, "Binary Tensor Data Extension".
"""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import InvalidError

Loc: TypeAlias = tuple[str | int, ...]
BYTES, BOOL = "BYTES", "BOOL"
NUMBERS: Mapping[str, npt.DTypeLike] = {
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Datatypes of numbers, and their elements on the wire."""
DATATYPES = (BOOL, *NUMBERS, BYTES)
DIMENSIONS_MAX = 8
"""More than any tensor here has; a shape of a million dimensions would take long to multiply out."""
_LENGTH = struct.Struct("<I")
_NONE = type(None)


class Tensor(NamedTuple):
    """A tensor as it stands in a message.

    Attributes:
        name: Its name.
        datatype: One of ``DATATYPES``.
        shape: Its dimensions.
        content: JSON data, or the bytes of the binary form.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: list[Any] | bytes


def check_shape(loc: Loc, shape: object) -> tuple[int, ...]:
    """A shape out of JSON.

    Raises:
        InvalidError: It is no list of a few sizes.

    Example:
        >>> check_shape((), [2, 3])
        (2, 3)
    """
    if not isinstance(shape, list) or not set(map(type, shape)) <= {int} or any(size < 0 for size in shape):
        raise InvalidError.at((*loc, "shape"), "expected a list of sizes, for instance [2, 3]")
    if len(shape) > DIMENSIONS_MAX:
        raise InvalidError.at((*loc, "shape"), f"{len(shape)} dimensions; a tensor has at most {DIMENSIONS_MAX}")
    return tuple(shape)


def values_of(tensor: Tensor, loc: Loc) -> list[Any]:
    """The elements of a tensor as Python values, in row-major order; ``None`` where JSON has null.

    Args:
        tensor: Whose.
        loc: Its place in the request.

    Raises:
        InvalidError: The content is not of the shape or of the datatype; names the place.

    Example:
        >>> values_of(Tensor("x", "FP32", (2, 2), [[1, 2], [3, None]]), ())
        [1, 2, 3, None]
        >>> values_of(Tensor("x", "BYTES", (2,), bytes([1, 0, 0, 0, 97, 0, 0, 0, 0])), ())
        ['a', '']
    """
    if isinstance(tensor.content, list):
        return _checked(tensor, _flat(tensor, loc), (*loc, "data"))
    if tensor.datatype == BYTES:
        return _texts(tensor, tensor.content, loc)
    width = 1 if tensor.datatype == BOOL else np.dtype(NUMBERS[tensor.datatype]).itemsize
    count = math.prod(tensor.shape)
    if count * width != len(tensor.content):
        raise InvalidError.at(loc, f"{len(tensor.content)} bytes of data, its shape and datatype make {count * width}")
    if tensor.datatype == BOOL:
        if not set(tensor.content) <= {0, 1}:
            raise InvalidError.at(loc, "a BOOL is a byte of 0 or 1")
        return [value == 1 for value in tensor.content]
    found: list[Any] = np.frombuffer(tensor.content, NUMBERS[tensor.datatype]).tolist()
    return found


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    r"""The binary form of elements; the inverse of ``values_of``.

    Example:
        >>> pack("INT16", [1, -1]).hex()
        '0100ffff'
        >>> pack("BYTES", ["a"])
        b'\x01\x00\x00\x00a'
    """
    if datatype == BYTES:
        texts = [value.encode() for value in values]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    if datatype == BOOL:
        return bytes(values)
    return np.asarray(values, dtype=NUMBERS[datatype]).tobytes()


def _flat(tensor: Tensor, loc: Loc) -> list[Any]:
    """JSON data in row-major order, whether it came flat or nested."""
    data, shape = tensor.content, tensor.shape
    count = math.prod(shape)
    if list not in set(map(type, data)):
        if len(data) != count:
            raise InvalidError.at((*loc, "data"), f"{len(data)} values, the shape makes {count}")
        return list(data)
    level: list[Any] = [data]
    for size in shape:
        if any(type(part) is not list or len(part) != size for part in level):
            raise InvalidError.at((*loc, "data"), "the lists are not of the shape; nest them by it, or not at all")
        level = list(chain.from_iterable(level))
    return level


def _checked(tensor: Tensor, values: list[Any], loc: Loc) -> list[Any]:
    """Values that belong to the datatype; null passes, whether it may stand there is for the model to say."""
    datatype = tensor.datatype
    kinds = set(map(type, values)) - {_NONE}
    allowed: set[type] = {bool} if datatype == BOOL else {str} if datatype == BYTES else {int}
    if datatype.startswith("FP"):
        allowed = {int, float}
    if not kinds <= allowed:
        place = next(index for index, value in enumerate(values) if type(value) not in {*allowed, _NONE})
        raise InvalidError.at((*loc, place), f"this is no {datatype}")
    if allowed == {int}:
        bounds = np.iinfo(np.dtype(NUMBERS[datatype]))
        for place, value in enumerate(values):
            if value is not None and not bounds.min <= value <= bounds.max:
                raise InvalidError.at((*loc, place), f"out of the range of {datatype}")
    return values


def _texts(tensor: Tensor, content: bytes, loc: Loc) -> list[Any]:
    count, at = math.prod(tensor.shape), 0
    if count * _LENGTH.size > len(content):
        raise InvalidError.at(loc, f"{len(content)} bytes of data are too few for {count} elements with their lengths")
    found: list[Any] = []
    for index in range(count):
        start = at + _LENGTH.size
        if start > len(content):
            raise InvalidError.at(loc, f"the data ends before element {index}")
        at = start + _LENGTH.unpack_from(content, at)[0]
        if at > len(content):
            raise InvalidError.at(loc, f"element {index} is longer than the data")
        try:
            found.append(content[start:at].decode())
        except UnicodeDecodeError:
            raise InvalidError.at(loc, f"element {index} is no text in UTF-8") from None
    if at != len(content):
        raise InvalidError.at(loc, f"{len(content) - at} bytes of data follow the last element")
    return found
