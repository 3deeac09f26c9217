"""The command that sets the network for tables beside boosting, on a made-up folder."""

import json
from functools import partial
from pathlib import Path

import pytest

from loadtest import tabular
from models import Tabular
from tests.loadtest.test_realdata import write_folder


def test_both_are_judged_on_the_same_fifths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line a data set, all figures in the file, exit code 1 where the network is behind."""
    write_folder(tmp_path)
    monkeypatch.setattr(tabular, "Tabular", partial(Tabular, bins=16, members=1, hidden=8, steps_min=3, epochs=1))
    file = tmp_path / "build" / "figures.json"
    words = ["--data", str(tmp_path), "--only", "gas_drift", "--fifths", "2", "--json", str(file)]
    monkeypatch.setattr(tabular, "TARGET", 0.0)
    with pytest.raises(SystemExit, match="over 0 times boosting's error: gas_drift"):
        tabular.main(words)
    (result,) = json.loads(file.read_text("utf-8"))
    assert result["rows"] == 72  # the first 30%
    assert {kind: len(errors) for kind, errors in result["fifths"].items()} == {"boosting": 2, "network": 2}
    assert result["ratio"] == pytest.approx(result["network"] / max(result["boosting"], 5 / (2 * 72)))
    assert "| gas_drift | 72 | share wrong |" in capsys.readouterr().out
