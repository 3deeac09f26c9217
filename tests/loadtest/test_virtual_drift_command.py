"""The benchmark of inputs that move: its command, shortened, and its published figures."""

import json
from pathlib import Path

import pytest

from loadtest import virtual_drift

DOCS = Path(__file__).parents[2] / "docs"


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shortened run gives every kind's row and all figures as JSON, and does not judge the targets."""
    figures = tmp_path / "out" / "figures.json"
    assert virtual_drift.main(["--streams", "2", "--rows", "20", "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "targets are not judged" in printed
    found = json.loads(figures.read_text("utf-8"))
    assert found["false_per_1000"].keys() == virtual_drift.STEADY.keys()
    assert [(one["inputs"], one["shift"]) for one in found["shifts"]] == list(virtual_drift.SHIFTS)
    for kind in (*virtual_drift.STEADY, *virtual_drift.RESTLESS):
        assert f"| {kind} |" in printed


def test_a_missed_target_is_said() -> None:
    """Too many false warnings of one kind, or a shift found too late."""
    figures = {
        "false_per_1000": {"independent, normal": 0.2, "AR(1), 0.9": 0.1},
        "shifts": [{"inputs": "independent, normal", "shift": 1.0, "delay_rows": 41.0, "found": 0.99}],
    }
    found = virtual_drift.missed(figures, virtual_drift.STREAMS, virtual_drift.ROWS)
    assert [sentence.partition(":")[0] for sentence in found] == ["independent, normal", "a shift of 1 σ"]


def test_documented_figures_are_the_measured_ones() -> None:
    """The page shows every figure of the committed JSON, and they reach the targets."""
    figures = json.loads((DOCS / "benchmarks" / "virtual_drift.json").read_text("utf-8"))
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    lines = [line for line in virtual_drift.table(figures).splitlines() if line.startswith("|")]
    assert [line for line in lines if line not in page] == []
    assert virtual_drift.missed(figures, figures["streams"], figures["rows"]) == []
