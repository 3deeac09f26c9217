"""The comparison of meta-training speeds: all contenders compute the same, and what is said is what was measured."""

import json
from pathlib import Path

import pytest

from loadtest.metatrain_speed import AGREE, OURS, Timing, main, ratio


def test_the_command_compares_the_same_gradients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 means equal meta-gradients; the plain loop needs no package and is always there."""
    figures = tmp_path / "speed.json"
    assert main(["--rounds", "1", "--iterations", "2", "--json", str(figures)]) == 0
    written = json.loads(figures.read_text("utf-8"))
    assert {OURS, "plain autograd, per task"} <= written["contenders"].keys()
    assert len(written["contenders"]) + len(written["absent"]) == 4
    for contender in written["contenders"].values():
        assert contender["gradient_difference"] < AGREE
        assert len(contender["wall_ms"]) == 1
    assert "plain autograd, per task" in capsys.readouterr().out


def test_a_ratio_that_is_not_reached_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is a million times slower."""
    words = ["--rounds", "1", "--iterations", "1", "--least", "1e6", "--json", str(tmp_path / "speed.json")]
    assert main(words) == 1
    assert "times slower than ours" in capsys.readouterr().out


def test_ratio_is_of_medians() -> None:
    """An odd round counts for little."""
    timings = {OURS: Timing([1.0, 2.0, 50.0], []), "loop": Timing([16.0, 900.0, 10.0], [])}
    assert ratio(timings, "loop") == 8.0
