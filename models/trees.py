"""Ensembles of binary trees as plain tensors: made once by ``pack_trees``, evaluated by ``tree_scores``.

No tree is walked. Every inner node of every tree is tested at once; a test that fails (the row goes right) rules out
the leaves of the node's left subtree. With a tree's leaves numbered from left to right and one bit each, the rows'
leaves are the lowest bits that survive the conjunction of all masks: a dozen tensor operations, whatever the depth.

Missing values and categories cost nothing per node. Each feature stands in the columns twice, a missing value once as
−∞ (goes left) and once as +∞ (goes right), and a node reads the one that it wants; every distinct split of a
category's codes is one more column, looked up once per row.

Reference:
    Lucchese et al.: QuickScorer, a fast algorithm to rank documents with additive ensembles of regression trees,
    SIGIR 2015 (the masks; their traversal by sorted thresholds does not suit tensors).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.types import FloatArray, Tensors

PREFIX = "trees_"
"""Begins the tensors' names unless the caller says otherwise."""
LEAVES_MAX = 64
"""A leaf is one bit of an integer."""
BLOCK = 1 << 17
"""Node tests that are evaluated together: 1 MB in all fits a core's cache; larger buffers wait for fresh pages."""
BLOCK_ROWS = 64
"""Rows of a block, where there are so many: the shorter the passes, the more they cost."""
FINITE_MAX = float(np.finfo(np.float32).max)

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


class Tree(NamedTuple):
    """One binary tree of N nodes; node 0 is the root.

    Attributes:
        feature: (N,) column that a node tests.
        threshold: (N,) goes left where the value is at most this; not looked at in a categorical node.
        missing_left: (N,) whether a missing value goes left.
        left: (N,) left child, -1 in a leaf.
        right: (N,) right child, -1 in a leaf.
        value: (N,) what a leaf adds to the score.
        codes_left: For each categorical node, whether code c goes left, at place c; what is outside counts as missing.
    """

    feature: IntArray
    threshold: FloatArray
    missing_left: BoolArray
    left: IntArray
    right: IntArray
    value: FloatArray
    codes_left: Mapping[int, BoolArray]


def pack_trees(rounds: Sequence[Sequence[Tree | None]], baseline: Sequence[float], prefix: str = PREFIX) -> Tensors:
    """Lay an additive ensemble out for ``tree_scores``.

    Args:
        rounds: Boosting iterations, each one tree per score; None adds nothing.
        baseline: The K scores without any tree.
        prefix: Begins the tensors' names.

    Returns:
        With T = rounds · K trees (K innermost), N tests per tree (a power of two) and Q distinct categorical splits:
        ``feature`` (N, T) int32 column, ``threshold`` (N, T) float32, ``leaves`` (N, T) int32 (int64 where a tree has
        more than 32 leaves) mask of the leaves that survive a failed test, ``value`` (T, leaves) float32, ``baseline``
        (K,) float32, ``category`` (Q,) int32 feature of a split, ``goes_right`` (Q, V) bool by code, of which the
        last is for missing and unknown.

    Raises:
        ValueError: A tree has more than 64 leaves, or a round has other than K trees.
    """
    if any(len(trees) != len(baseline) for trees in rounds):
        raise ValueError(f"each round needs {len(baseline)} trees, one per score")
    flat = [_flatten(tree) for trees in rounds for tree in trees]
    leaves = max((len(tree.values) for tree in flat), default=1)
    if leaves > LEAVES_MAX:
        raise ValueError(f"a tree has {leaves} leaves, {LEAVES_MAX} fit")
    word, bits = (np.int32, 32) if leaves <= 32 else (np.int64, 64)  # noqa: PLR2004 - bits of an int32
    nodes = 1 << max(leaves - 2, 0).bit_length()
    splits: dict[tuple[int, bytes], int] = {}
    feature = np.zeros((nodes, len(flat)), np.int32)
    threshold = np.full((nodes, len(flat)), np.inf, np.float32)  # a test that is not there passes
    survivors = np.full((nodes, len(flat)), -1, word)
    value = np.zeros((len(flat), leaves), np.float32)
    for place, tree in enumerate(flat):
        value[place, : len(tree.values)] = tree.values
        for node, test in enumerate(tree.tests):
            if test.goes_right is None:
                feature[node, place] = 2 * test.feature + (not test.missing_left)
                threshold[node, place] = _round_down(test.threshold)
            else:
                split = splits.setdefault((test.feature, test.goes_right.tobytes()), len(splits))
                feature[node, place], threshold[node, place] = -1 - split, 0.5
            ruled_out = (1 << test.last) - (1 << test.first)
            mask = (1 << bits) - 1 - ruled_out
            survivors[node, place] = mask - (1 << bits) if mask >> (bits - 1) else mask
    category, goes_right = _split_table(splits)
    feature = np.where(feature < 0, -1 - feature, feature + len(splits)).astype(np.int32)  # splits come first
    arrays = {
        "feature": feature,
        "threshold": threshold,
        "leaves": survivors,
        "value": value,
        "baseline": np.asarray(baseline, np.float32),
        "category": category,
        "goes_right": goes_right,
    }
    return {prefix + name: torch.from_numpy(array) for name, array in arrays.items()}


def tree_scores(tensors: Mapping[str, Tensor], x: Tensor, prefix: str = PREFIX) -> Tensor:
    """Raw scores of rows.

    Values are compared as float32; thresholds were rounded down to float32, so that no float32 value changes sides.

    Args:
        tensors: What ``pack_trees`` made; other tensors in the mapping are ignored.
        x: (..., D) rows as in training: numbers, and codes for categories; NaN is missing.
        prefix: Begins the tensors' names.

    Returns:
        (..., K) float32: predicted value (regression), log-odds (two classes, K = 1) or scores to take the softmax of.
    """
    names = ("feature", "threshold", "leaves", "value", "baseline", "category", "goes_right")
    feature, threshold, leaves, value, baseline, category, goes_right = (tensors[prefix + name] for name in names)
    rows = x.reshape(-1, x.shape[-1]).to(torch.float32)
    (nodes, trees), outputs = feature.shape, len(baseline)
    if feature.numel() * len(rows) > BLOCK:
        trees = min(trees, max(1, BLOCK // (nodes * BLOCK_ROWS * outputs)) * outputs)
    step = max(1, BLOCK // max(1, nodes * trees))
    parts = (feature.split(trees, 1), threshold.split(trees, 1), leaves.split(trees, 1), value.split(trees))
    blocks = list(zip(*parts, strict=True))
    scores = baseline.to(torch.float64).repeat(len(rows), 1)
    for start in range(0, len(rows), step):
        columns = _columns(rows[start : start + step], category, goes_right)
        for block in blocks:
            scores[start : start + step] += _added(columns, *block, outputs)
    return scores.to(torch.float32).view(*x.shape[:-1], outputs)


def _added(columns: Tensor, feature: Tensor, threshold: Tensor, leaves: Tensor, value: Tensor, outputs: int) -> Tensor:
    """What some trees add to the K scores of a block of R rows: (R, K) float64.

    Rows are innermost, so that each test is one contiguous pass over them.

    Args:
        columns: (Q + 2D, R), what nodes test.
        feature: (N, T).
        threshold: (N, T).
        leaves: (N, T).
        value: (T, leaves).
        outputs: K.
    """
    (nodes, trees), rows = feature.shape, columns.shape[1]
    tested = columns.index_select(0, feature.reshape(-1)).view(nodes, trees, rows)
    alive = torch.where(tested <= threshold[..., None], -1, leaves[..., None])  # (N, T, R)
    while nodes > 1:
        nodes //= 2
        alive = alive[:nodes] & alive[nodes:]
    lowest = (alive[0] & -alive[0]).to(torch.float32)  # a power of two: exact
    leaf = torch.frexp(lowest).exponent  # 1 for the first leaf
    first = torch.arange(-1, trees * value.shape[1] - 1, value.shape[1], dtype=torch.int32, device=columns.device)
    reached = value.reshape(-1).index_select(0, (leaf + first[:, None]).view(-1))
    return reached.view(trees // outputs, outputs, rows).sum(0, dtype=torch.float64).t()


def _columns(x: Tensor, category: Tensor, goes_right: Tensor) -> Tensor:
    """What nodes test, for rows (R, D): Q splits of categories, then each feature twice; (Q + 2D, R)."""
    rows = x.t()
    left = rows.nan_to_num(nan=-math.inf, posinf=FINITE_MAX, neginf=-FINITE_MAX)
    right = rows.nan_to_num(nan=math.inf, posinf=FINITE_MAX, neginf=-FINITE_MAX)
    numeric = torch.stack((left, right), 1).flatten(0, 1)
    if not len(category):
        return numeric
    codes = rows.index_select(0, category)  # (Q, R)
    other = goes_right.shape[1] - 1
    known = (codes >= 0) & (codes < other)  # false for NaN
    right_by_code = goes_right.gather(1, torch.where(known, codes, other).to(torch.int64))
    return torch.cat((right_by_code.to(x.dtype), numeric))


@dataclass(frozen=True, slots=True)
class _Test:
    """An inner node: if it fails, leaves ``first`` to ``last`` (exclusive) are ruled out."""

    feature: int
    threshold: float
    missing_left: bool
    goes_right: BoolArray | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Flat:
    """A tree as its tests, in any order, and its leaves' values from left to right."""

    tests: list[_Test] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def _flatten(tree: Tree | None) -> _Flat:
    flat = _Flat()
    if tree is None:
        flat.values.append(0.0)
        return flat

    def visit(node: int) -> None:
        if tree.left[node] < 0:
            flat.values.append(float(tree.value[node]))
            return
        first = len(flat.values)
        visit(int(tree.left[node]))
        missing_left = bool(tree.missing_left[node])
        goes_right = np.append(~tree.codes_left[node], not missing_left) if node in tree.codes_left else None
        place = int(tree.feature[node]), float(tree.threshold[node]), missing_left
        flat.tests.append(_Test(*place, goes_right, first, len(flat.values)))
        visit(int(tree.right[node]))

    visit(0)
    return flat


def _split_table(splits: Mapping[tuple[int, bytes], int]) -> tuple[npt.NDArray[np.int32], BoolArray]:
    """Features (Q,) and directions (Q, V) of the categorical splits; short rows continue as missing does."""
    tables = [np.frombuffer(directions, np.bool_) for _, directions in splits]
    width = max((len(table) for table in tables), default=1)
    goes_right = np.array([np.pad(table, (0, width - len(table)), mode="edge") for table in tables], np.bool_)
    category = np.array([feature for feature, _ in splits], np.int32)
    return category, goes_right.reshape(len(tables), width)


def _round_down(threshold: float) -> np.float32:
    """The greatest float32 below infinity that is at most the threshold: the same side for every float32 value."""
    if threshold < -FINITE_MAX:
        return np.float32(-np.inf)
    clipped = min(threshold, FINITE_MAX)
    rounded = np.float32(clipped)
    return rounded if float(rounded) <= clipped else np.nextafter(rounded, np.float32(-np.inf))
