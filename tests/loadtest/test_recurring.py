"""Regimes that return: what remembering them saves."""

import json
from pathlib import Path

import torch

from loadtest import recurring

DOCS = Path(__file__).parents[2] / "docs"


def test_a_returning_regression_costs_a_third_of_a_fresh_start_at_most() -> None:
    """On few streams and visits already."""
    world = recurring.WORLDS["linear regression"](12, 1.0, torch.Generator().manual_seed(0))
    rows = 4 * recurring.VISIT_ROWS
    x, y, truth = (values[:, :rows] for values in (world.x, world.y, world.truth))
    found = recurring.compare(world._replace(x=x, y=y, truth=truth, visits=world.visits[:, :4]))
    assert found.ratio <= recurring.RATIO_MAX
    assert found.found > 0.9
    assert not recurring.missed({"linear regression": found})


def test_documented_recurring_figures_are_the_measured_ones() -> None:
    """Every world's line stands in docs/benchmarks.md as the JSON has it."""
    report = json.loads((DOCS / "benchmarks" / "recurring.json").read_text("utf-8"))
    assert report["worlds"].keys() == recurring.WORLDS.keys()
    assert report["missed"] == []
    figures = {
        name: recurring.Compared(**{key: one[key] for key in recurring.Compared._fields})
        for name, one in report["worlds"].items()
    }
    documented = (DOCS / "benchmarks.md").read_text("utf-8")
    for line in recurring.table(figures, "").splitlines()[:-1]:
        assert line in documented
