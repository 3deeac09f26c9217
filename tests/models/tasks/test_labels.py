"""Tables where each stream names its own classes: slots, and their shuffles in meta-training."""

import numpy as np
import pytest
import torch

from models.errors import DataError
from models.tasks.episodes import Stretches, prepare
from models.tasks.labels import label_slots, shuffle_slots, table_targets
from models.tasks.table import Column, Table
from models.types import Label, Lags
from tests.models.examples import small_model


def table(labels: list[str], streams: list[int]) -> Table:
    """Rows with the features of the small model."""
    rows = len(labels)
    columns: dict[str, Column] = {name: np.linspace(0.0, 1.0, rows) for name in ("a", "b")}
    names, target = tuple(f"s{code}" for code in range(max(streams) + 1)), list[Label](labels)
    return Table("t", "classification", "", columns, "y", target, tuple(sorted(set(labels))), np.array(streams), names)


def test_labels_take_slots_as_they_come_in_each_stream() -> None:
    """The same label has another slot where it comes at another time."""
    given = table(["x", "y", "y", "z", "x", "y"], [0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(label_slots(given), [0, 0, 1, 2, 0, 0])


def test_a_stream_with_more_labels_than_ways_is_named() -> None:
    """With what to do."""
    spec = small_model("classification", ways=2).spec
    with pytest.raises(DataError, match=r"stream s0 has 3 labels.*--ways 3"):
        table_targets(spec, table(["x", "y", "z"], [0, 0, 0]))


@pytest.mark.parametrize("ways", [2, 4])
def test_shuffles_move_labels_and_known_labels_alike(ways: int) -> None:
    """Columns that tell the last label go on telling it; every slot becomes every other."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(ways, (50, 9), generator=generator)
    known = 2.0 * y[..., None] - 1 if ways == 2 else torch.eye(ways)[y]
    x = torch.cat([torch.ones(50, 9, 2), known, known, torch.ones(50, 9, 1)], dim=-1)
    lags = slice(2, x.shape[-1] - 1)
    moved, slots = shuffle_slots(x, y, lags, ways, generator)
    told = 2.0 * slots[..., None] - 1 if ways == 2 else torch.eye(ways)[slots]
    torch.testing.assert_close(moved[..., lags], torch.cat([told, told], dim=-1))
    torch.testing.assert_close(moved[..., :2], x[..., :2])
    pairs = {(int(a), int(b)) for a, b in zip(y.flatten(), slots.flatten(), strict=True)}
    assert len(pairs) == ways**2


def test_meta_training_sees_every_class_in_every_slot() -> None:
    """Rows of one class all have one slot in a task, and another in another."""
    model = small_model("classification", Lags((1,)), ways=3)
    data = prepare(model.spec, table(["x", "x", "y", "y", "x", "z"] * 10, [0] * 60), 0)
    episode = Stretches(data, data.streams, sequential=True, lengths=(6,)).draw(torch.Generator().manual_seed(0))
    first = episode.query.y[:, 0]
    assert set(first.tolist()) == {0, 1, 2}
