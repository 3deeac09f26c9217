"""Requests and replies as bytes: a JSON object, and after it the data of tensors in binary form."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from service.errors import InvalidError, MalformedError
from service.json_body import decode
from service.oip.tensors import DATATYPES, Loc, Tensor, check_shape, pack
from service.schemas import ID_RULE, is_id

TENSORS_MAX = 10_000
"""Tensors of one request; one a feature is the most that a model takes."""
_SCALARS = (str, int, float)


class Wanted(NamedTuple):
    """An output that the client asks for, and whether as binary data; ``None`` leaves that to the request."""

    name: str
    binary: bool | None


class Asked(NamedTuple):
    """An infer or learn request whose structure was checked.

    Attributes:
        id: The client's name for it, to be repeated.
        stream: The stream that is asked; ``None`` for the frozen start.
        start: Whether the stream is reset first.
        inputs: Input tensors.
        outputs: Outputs that are wanted; ``None`` for all.
        binary: Whether outputs are binary data where they do not say themselves.
    """

    id: str | None
    stream: str | None
    start: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Wanted, ...] | None
    binary: bool


class Output(NamedTuple):
    """An output tensor: its elements in row-major order, and its parameters."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]
    parameters: Mapping[str, Any] = {}


class Reply(NamedTuple):
    """What is answered to a request."""

    model: str
    version: int
    parameters: Mapping[str, Any]
    outputs: Sequence[Output]


def read_request(body: bytes, json_bytes: int | None) -> Asked:
    """Take a request apart; tensors are decoded later, by ``values_of``.

    Args:
        body: The whole body.
        json_bytes: Length of its JSON part as the client states it; ``None``: all of it.

    Raises:
        MalformedError, InvalidError: It is no such request, or its lengths do not add up; names the place.

    Example:
        >>> body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2.5]}]}'
        >>> read_request(body, None).inputs
        (Tensor(name='x', datatype='FP64', shape=(1,), content=[2.5]),)
    """
    if json_bytes is not None and json_bytes > len(body):
        raise MalformedError(f"The body has {len(body)} bytes, Inference-Header-Content-Length says {json_bytes}.")
    message = decode(body[:json_bytes])
    if not isinstance(message, dict):
        raise InvalidError.at((), "expected a JSON object")
    given = message.get("id")
    if given is not None and not isinstance(given, str):
        raise InvalidError.at(("id",), "expected a string")
    parameters = _parameters((), message)
    stream = _stream(parameters)
    start = _flag(("parameters",), parameters, "sequence_start") or False
    if start and stream is None:
        raise InvalidError.at(("parameters", "sequence_start"), "which stream? send its sequence_id, too")
    rest = b"" if json_bytes is None else body[json_bytes:]
    return Asked(
        given,
        stream,
        start,
        _inputs(message.get("inputs"), rest),
        _outputs(message.get("outputs")),
        _flag(("parameters",), parameters, "binary_data_output") or False,
    )


def write_reply(asked: Asked, reply: Reply) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part where binary data follows it.

    Raises:
        InvalidError: An output was asked for that there is not.
    """
    message: dict[str, Any] = {"model_name": reply.model, "model_version": str(reply.version)}
    if asked.id is not None:
        message["id"] = asked.id
    message |= {"parameters": reply.parameters, "outputs": []}
    found = {output.name: output for output in reply.outputs}
    wanted = [Wanted(name, None) for name in found] if asked.outputs is None else asked.outputs
    tail = []
    for one in wanted:
        output = found[one.name]
        stated: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        parameters = dict(output.parameters)
        if asked.binary if one.binary is None else one.binary:
            tail.append(pack(output.datatype, output.values))
            parameters["binary_data_size"] = len(tail[-1])
        else:
            stated["data"] = output.values
        message["outputs"].append(stated | ({"parameters": parameters} if parameters else {}))
    head = orjson.dumps(message)
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)


def check_wanted(asked: Asked, names: Collection[str]) -> None:
    """Raise InvalidError where an output is asked for that is not among ``names``."""
    for index, one in enumerate(asked.outputs or ()):
        if one.name not in names:
            raise InvalidError.at(("outputs", index, "name"), f"unknown output; there are {', '.join(names)}")


def parse_index(body: bytes) -> bool:
    """Whether a request for the index of models asks for those only that are ready; the body may be empty.

    Raises:
        MalformedError, InvalidError: It is no such request.
    """
    message = decode(body) if body else {}
    if not isinstance(message, dict):
        raise InvalidError.at((), "expected a JSON object")
    return _flag((), message, "ready") or False


def _inputs(inputs: object, rest: bytes) -> tuple[Tensor, ...]:
    """The input tensors, each with its part of the binary data."""
    if not isinstance(inputs, list) or not 0 < len(inputs) <= TENSORS_MAX:
        raise InvalidError.at(("inputs",), f"expected a list of 1 to {TENSORS_MAX} tensors")
    found: list[Tensor] = []
    at = 0
    for index, tensor in enumerate(inputs):
        loc = ("inputs", index)
        if not isinstance(tensor, dict):
            raise InvalidError.at(loc, "expected a tensor: an object with name, shape, datatype and data")
        name, datatype = tensor.get("name"), tensor.get("datatype")
        if not isinstance(name, str):
            raise InvalidError.at((*loc, "name"), "expected a string")
        if datatype not in DATATYPES:
            raise InvalidError.at((*loc, "datatype"), f"unknown; this server takes {', '.join(DATATYPES)}")
        shape, parameters = check_shape(loc, tensor.get("shape")), _parameters(loc, tensor)
        if "shared_memory_region" in parameters:
            raise InvalidError.at((*loc, "parameters"), "shared memory is not taken: send the data in the request")
        content: object = tensor.get("data")
        size = parameters.get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(rest) - at:
                raise InvalidError.at(
                    (*loc, "parameters", "binary_data_size"),
                    f"{len(rest) - at} bytes of binary data are left for it (Inference-Header-Content-Length says "
                    "where they begin)",
                )
            if content is not None:
                raise InvalidError.at((*loc, "data"), "the tensor has binary data, too; send one of them")
            content, at = rest[at : at + size], at + size
        if not isinstance(content, list | bytes):
            raise InvalidError.at((*loc, "data"), "expected a list, or the parameter binary_data_size")
        found.append(Tensor(name, datatype, shape, content))
    if at != len(rest):
        raise MalformedError(f"{len(rest) - at} bytes of binary data belong to no tensor.")
    return tuple(found)


def _outputs(outputs: object) -> tuple[Wanted, ...] | None:
    if not outputs:  # left out, null or empty
        return None
    if not isinstance(outputs, list):
        raise InvalidError.at(("outputs",), "expected a list of outputs, each with its name")
    found: list[Wanted] = []
    for index, output in enumerate(outputs):
        loc = ("outputs", index)
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidError.at((*loc, "name"), "expected an object with the name of an output")
        if any(one.name == output["name"] for one in found):
            raise InvalidError.at((*loc, "name"), "asked for twice")
        parameters = _parameters(loc, output)
        for name in ("classification", "shared_memory_region"):
            if name in parameters:
                raise InvalidError.at((*loc, "parameters", name), "not offered; leave it out")
        found.append(Wanted(output["name"], _flag((*loc, "parameters"), parameters, "binary_data")))
    return tuple(found)


def _parameters(loc: Loc, holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(value, _SCALARS) for value in parameters.values()):
        raise InvalidError.at((*loc, "parameters"), "expected an object of strings, numbers and booleans")
    return parameters


def _stream(parameters: Mapping[str, Any]) -> str | None:
    """The stream of a request: ``sequence_id``, where 0 and the empty string are none, as in Triton."""
    given = parameters.get("sequence_id")
    if type(given) is int:
        given = str(given or "")
    if given is None or given == "":
        return None
    if not isinstance(given, str) or not is_id(given):
        raise InvalidError.at(("parameters", "sequence_id"), f"{ID_RULE}, or an integer")
    return given


def _flag(loc: Loc, holder: Mapping[str, Any], name: str) -> bool | None:
    value = holder.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidError.at((*loc, name), "expected true or false")
    return value
