"""The sinusoid benchmark's command, shortened."""

import json
from pathlib import Path

import pytest

from loadtest.sinusoid import METHODS, main


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
        assert found[name]["mse"].keys() == {str(point) for point in method.points}
        assert found[name]["finite"]
        assert found[name]["targets"].keys() <= found[name]["mse"].keys()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_documented_figures_are_the_measured_ones() -> None:
    """The page shows every mean and interval of the committed JSON, and they reach the targets."""
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "benchmarks.md").read_text("utf-8")
    for found in json.loads((docs / "benchmarks" / "sinusoid.json").read_text("utf-8"))["methods"].values():
        cells = [f"{figure['mean']:.3f} ± {figure['interval_95']:.3f}" for figure in found["mse"].values()]
        assert f"| {found['title']} | {' | '.join(cells)} |" in page
        assert found["missed"] == []
        assert found["share_of_iterations"] == 1.0
