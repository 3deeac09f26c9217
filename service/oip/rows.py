"""Input tensors as a model's rows, and label tensors as targets."""

from collections.abc import Sequence
from typing import Any

from service.errors import InvalidError
from service.oip.messages import Asked
from service.oip.tensors import Loc, Tensor, values_of
from service.types import ModelInfo, Row

INPUTS, TARGETS = "inputs", "targets"
"""Names of the tensor that has all features, and of the one that has the labels."""
_MATRIX = 2
"""Dimensions of a matrix."""


def rows_of(asked: Asked, info: ModelInfo, rows_max: int, *, labelled: bool = False) -> list[Row]:
    """The rows of a request: out of one tensor ``inputs`` (rows, features), or of one tensor a feature, by its name.

    A feature whose tensor is left out is missing in all rows. Whether a model takes a value is for its encoding to say.

    Args:
        asked: The request.
        info: The model that is asked.
        rows_max: Most rows.
        labelled: Whether the tensor ``targets`` stands among the inputs.

    Raises:
        InvalidError: A tensor that the model has no use for, or whose shape does not fit.
    """
    placed: list[tuple[Loc, Tensor]] = [
        (("inputs", index), tensor)
        for index, tensor in enumerate(asked.inputs)
        if not (labelled and tensor.name == TARGETS)
    ]
    if not placed:
        raise InvalidError.at(("inputs",), f"there are no rows; send the tensor {INPUTS}, or one a feature")
    if any(tensor.name == INPUTS for _, tensor in placed):
        if len(placed) > 1:
            raise InvalidError.at(("inputs",), f"the tensor {INPUTS} has all features; send no other beside it")
        return _matrix(*placed[0], width=len(info.features), rows_max=rows_max)
    return _columns(placed, [feature.name for feature in info.features], rows_max)


def targets_of(asked: Asked, rows: int) -> list[Any]:
    """The labels of a learn request: one a row, a list of numbers each where the tensor has several columns.

    Raises:
        InvalidError: There are none, or not one a row.
    """
    places = [index for index, tensor in enumerate(asked.inputs) if tensor.name == TARGETS]
    if len(places) != 1:
        raise InvalidError.at(("inputs",), f"send the labels in one tensor {TARGETS}")
    loc, tensor = ("inputs", places[0]), asked.inputs[places[0]]
    shape = tensor.shape
    if len(shape) not in {1, _MATRIX} or shape[0] != rows:
        raise InvalidError.at((*loc, "shape"), f"expected [{rows}] or [{rows}, outputs]: one label a row")
    values = values_of(tensor, loc)
    width = shape[1] if len(shape) == _MATRIX else 1
    return values if width == 1 else _cut(values, rows, width)


def _matrix(loc: Loc, tensor: Tensor, *, width: int, rows_max: int) -> list[Row]:
    shape = tensor.shape
    if len(shape) != _MATRIX or shape[1] != width:
        raise InvalidError.at((*loc, "shape"), f"expected [rows, {width}]: the model has {width} features")
    _check_rows(loc, shape[0], rows_max)
    return list(_cut(values_of(tensor, loc), shape[0], width))


def _columns(placed: Sequence[tuple[Loc, Tensor]], features: Sequence[str], rows_max: int) -> list[Row]:
    columns: dict[str, list[Any]] = {}
    first = placed[0][1].shape
    for loc, tensor in placed:
        if tensor.name not in features:
            known = ", ".join(features)
            raise InvalidError.at((*loc, "name"), f"unknown tensor; send {INPUTS}, or one a feature: {known}")
        if tensor.name in columns:
            raise InvalidError.at((*loc, "name"), "stands twice")
        shape = tensor.shape
        if len(shape) not in {1, _MATRIX} or shape[1:] not in {(), (1,)} or shape[0] != first[0]:
            raise InvalidError.at((*loc, "shape"), "expected [rows], the same for all features")
        _check_rows(loc, shape[0], rows_max)
        columns[tensor.name] = values_of(tensor, loc)
    # By name, although all may be there: the stream may be bound to a version that has them in another order.
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_rows(loc: Loc, rows: int, rows_max: int) -> None:
    if not 0 < rows <= rows_max:
        raise InvalidError.at((*loc, "shape"), f"{rows} rows; a batch has 1 to {rows_max}, send several")


def _cut(values: list[Any], rows: int, width: int) -> list[list[Any]]:
    return [values[row * width : (row + 1) * width] for row in range(rows)]
