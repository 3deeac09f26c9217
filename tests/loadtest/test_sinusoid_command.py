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
