"""Ensembles of trees as tensors, against walking each tree node by node."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from models import trees
from models.trees import Tree, pack_trees, tree_scores
from models.types import FloatArray

FEATURES = 4
CATEGORY = 3
"""The column that holds codes."""
CODES = 5


def random_tree(rng: np.random.Generator, leaves: int, *, chain: bool = False) -> Tree:
    """A tree that splits a random leaf again and again, or always the last one: as deep as it has leaves."""
    left, right, open_leaves = [-1], [-1], [0]
    for _ in range(leaves - 1):
        node = open_leaves.pop() if chain else open_leaves.pop(int(rng.integers(len(open_leaves))))
        left[node], right[node] = len(left), len(left) + 1
        children = [left[node], right[node]]
        open_leaves += children if rng.random() < 0.5 else children[::-1]
        left += [-1, -1]
        right += [-1, -1]
    nodes = len(left)
    feature = rng.integers(FEATURES, size=nodes)
    inner = [node for node in range(nodes) if left[node] >= 0 and feature[node] == CATEGORY]
    return Tree(
        feature=feature,
        threshold=rng.choice([*rng.normal(size=5), np.inf], size=nodes),
        missing_left=rng.random(nodes) < 0.5,
        left=np.array(left),
        right=np.array(right),
        value=rng.normal(size=nodes),
        codes_left={node: rng.random(int(rng.integers(1, CODES + 1))) < 0.5 for node in inner},
    )


def random_rows(rng: np.random.Generator, rows: int) -> FloatArray:
    """Rows with missing values, infinities, and codes that no split knows."""
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32).astype(np.float64)
    x[:, CATEGORY] = rng.integers(CODES + 2, size=rows)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(rows) < 0.1, 0] = np.inf
    x[rng.random(rows) < 0.1, 1] = -np.inf
    return x


def walk(tree: Tree, row: FloatArray) -> float:
    """The value of the leaf that a row reaches."""
    node = 0
    while tree.left[node] >= 0:
        value = row[tree.feature[node]]
        if node in tree.codes_left:
            known = not np.isnan(value) and value < len(tree.codes_left[node])
            goes_left = tree.codes_left[node][int(value)] if known else tree.missing_left[node]
        else:
            goes_left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return float(tree.value[node])


def walked(rounds: Sequence[Sequence[Tree | None]], baseline: Sequence[float], x: FloatArray) -> FloatArray:
    """Scores (rows, K) by walking."""
    added = [[[walk(tree, row) if tree else 0.0 for tree in turn] for turn in rounds] for row in x]
    summed = np.array(added, np.float64).reshape(len(x), len(rounds), len(baseline)).sum(1)
    return np.asarray(summed + np.array(baseline), np.float64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leaves=st.integers(1, 64),
    scores=st.integers(1, 3),
    rounds=st.integers(0, 4),
    chain=st.booleans(),
)
def test_scores_are_those_of_walking_each_tree(seed: int, leaves: int, scores: int, rounds: int, chain: bool) -> None:
    """Whatever the shape of the trees, wherever values are missing, unknown or infinite."""
    rng = np.random.default_rng(seed)
    ensemble = [
        [random_tree(rng, int(rng.integers(1, leaves + 1)), chain=chain) for _ in range(scores)] for _ in range(rounds)
    ]
    baseline = list(rng.normal(size=scores))
    x = random_rows(rng, 30)
    found = tree_scores(pack_trees(ensemble, baseline), torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), walked(ensemble, baseline, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("leaves", [1, 2, 31, 32, 33, 63, 64])
def test_each_leaf_of_the_deepest_tree_is_reached(leaves: int) -> None:
    """A chain of as many tests as there are leaves less one, at the widths where masks change their size."""
    thresholds = np.arange(leaves - 1, dtype=np.float64)
    nodes = np.arange(2 * leaves - 1)
    inner = nodes < leaves - 1  # the others are leaves, the left children first
    right = np.where(nodes == leaves - 2, 2 * leaves - 2, nodes + 1)
    tree = Tree(
        feature=np.zeros(len(nodes), np.int64),
        threshold=np.concatenate((thresholds, np.zeros(leaves))),
        missing_left=np.zeros(len(nodes), np.bool_),
        left=np.where(inner, nodes + leaves - 1, -1),
        right=np.where(inner, right, -1),
        value=np.maximum(nodes - (leaves - 1), 0).astype(np.float64),
        codes_left={},
    )
    x = torch.arange(leaves, dtype=torch.float64)[:, None]  # value i is the first that threshold i lets through
    np.testing.assert_array_equal(tree_scores(pack_trees([[tree]], [0.0]), x)[:, 0], np.arange(leaves))


@settings(max_examples=200)
@given(threshold=st.floats(allow_nan=False), value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_value_goes_where_the_exact_threshold_sends_it(threshold: float, value: float) -> None:
    """Rounding the threshold changes no decision, next to it or anywhere."""
    tree = _stump(threshold)
    for near in (value, float(np.float32(np.clip(threshold, -3e38, 3e38)))):
        score = tree_scores(pack_trees([[tree]], [0.0]), torch.tensor([[near]], dtype=torch.float64))
        assert score.item() == (1.0 if near <= threshold else 2.0)


def test_any_leading_axes_and_blocks_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of many streams, cut into blocks of one row or of a few trees, or none at all."""
    rng = np.random.default_rng(0)
    tensors = pack_trees([[random_tree(rng, 31), None] for _ in range(3)], [0.0, 1.0])
    x = torch.from_numpy(random_rows(rng, 24))
    whole = tree_scores(tensors, x)
    assert torch.equal(tree_scores(tensors, x.view(2, 3, 4, FEATURES)), whole.view(2, 3, 4, 2))
    assert tree_scores(tensors, x[:0].view(2, 0, FEATURES)).shape == (2, 0, 2)
    for block in (1, 64, 2048):
        monkeypatch.setattr(trees, "BLOCK", block)
        monkeypatch.setattr(trees, "BLOCK_ROWS", 5)
        torch.testing.assert_close(tree_scores(tensors, x), whole)
    assert whole[:, 1].eq(1.0).all()


def test_tensors_survive_a_file_beside_others() -> None:
    """Written to safetensors and read back, under a prefix of their own, with and without categorical splits."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(random_rows(rng, 20))
    for ensemble in ([[random_tree(rng, 20)]], [[_stump(0.0)]], [[None]]):
        tensors = pack_trees(ensemble, [0.5], prefix="start.")
        read = load(save({**tensors, "other": torch.zeros(1)}))
        assert torch.equal(tree_scores(read, x, prefix="start."), tree_scores(tensors, x, prefix="start."))


def test_what_cannot_be_packed_is_refused() -> None:
    """More leaves than bits; rounds of the wrong width."""
    with pytest.raises(ValueError, match="65 leaves, 64 fit"):
        pack_trees([[random_tree(np.random.default_rng(0), 65)]], [0.0])
    with pytest.raises(ValueError, match="each round needs 2 trees"):
        pack_trees([[None]], [0.0, 0.0])


def _stump(threshold: float) -> Tree:
    """1 at most the threshold, 2 above."""
    return Tree(
        feature=np.zeros(3, np.int64),
        threshold=np.array([threshold, 0.0, 0.0]),
        missing_left=np.zeros(3, np.bool_),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        value=np.array([0.0, 1.0, 2.0]),
        codes_left={},
    )
