"""The sinusoid benchmark's command, shortened."""

import json
from pathlib import Path

import pytest

from loadtest.sinusoid import main
from loadtest.sinusoid_methods import METHODS
from loadtest.sinusoid_report import cells


def test_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shortened run gives every method's row, all figures as JSON, a picture, and does not judge the targets."""
    figures, picture = tmp_path / "out" / "figures.json", tmp_path / "out" / "picture.png"
    code = main(["--seeds", "1", "--share", "0.0005", "--tasks", "20", "--json", str(figures), "--plot", str(picture)])
    assert code == 0
    printed = capsys.readouterr().out
    assert "targets are not judged" in printed
    found = json.loads(figures.read_text("utf-8"))["methods"]
    assert found.keys() == METHODS.keys()
    for name, method in METHODS.items():
        assert f"| {method.title} |" in printed
        assert found[name]["mse"]["shots"].keys() == {str(shots) for shots in method.shots}
        assert found[name]["mse"]["steps"].keys() == {str(steps) for steps in method.steps}
        assert found[name]["finite"]
        for unit, targets in found[name]["targets"].items():
            assert targets.keys() <= found[name]["mse"][unit].keys()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_documented_figures_are_the_measured_ones() -> None:
    """The page shows every mean and interval of the committed JSON, and they reach the targets."""
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "benchmarks.md").read_text("utf-8")
    methods = json.loads((docs / "benchmarks" / "sinusoid.json").read_text("utf-8"))["methods"]
    assert methods.keys() <= METHODS.keys()
    assert methods
    for name, found in methods.items():
        for unit, columns in (("shots", ("5", "10", "20")), ("steps", tuple(found["mse"]["steps"]))):
            assert not columns or f"| {found['title']} | {' | '.join(cells(found, unit, columns))} |" in page
        assert found["missed"] == []
        assert found["share_of_iterations"] == 1.0
        assert len(found["cpu_seconds"]) == 3
        cited = METHODS[name].cited
        assert all(found["mse"]["shots"][str(shots)]["mean"] <= 1.11 * figure for shots, figure in cited.items())


def test_one_method_more_keeps_the_figures_of_the_others(tmp_path: Path) -> None:
    """Methods may be measured one at a time into one file, in the table's order."""
    figures = tmp_path / "figures.json"
    short = ["--seeds", "1", "--share", "0.0005", "--tasks", "5", "--json", str(figures)]
    for name in ("anil", "fomaml"):
        assert main([*short, "--method", name, "--plot", str(tmp_path / "none.png")]) == 0
    assert list(json.loads(figures.read_text("utf-8"))["methods"]) == ["fomaml", "anil"]
    assert not (tmp_path / "none.png").exists()
