"""The command for real streams, on a made-up folder of the same shape."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from loadtest.realdata import main

ROWS = 240


def write_folder(folder: Path) -> None:
    """Classes told by the sign of a feature, which turns round where the second batch begins."""
    rng = np.random.default_rng(0)
    lines = ["stream,t,a,b,label"]
    for t in range(ROWS):
        a, b = rng.normal(size=2).round(3)
        lines.append(f"one,{t},{a},{b},{int((a > 0) != (t >= ROWS // 2))}")
    (folder / "gas_drift.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / "client_splits.json").write_text("{}", "utf-8")
    half = {"batch_sizes": {"1": ROWS // 2, "2": ROWS // 2}}
    (folder / "meta.json").write_text(json.dumps({"gas_drift": half}), "utf-8")
    peers = {"gas_drift": {"delays": {"0": {"coin": {"accuracy": 0.5}, "better": {"accuracy": 0.6}}}}}
    (folder / "peers.json").write_text(json.dumps(peers), "utf-8")


def test_a_case_is_set_beside_its_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores of all runs, of boosted trees and of the best peer; the rows after the known change apart."""
    write_folder(tmp_path)
    file = tmp_path / "figures.json"
    main(["--data", str(tmp_path), "--only", "gas_drift", "--budget", "0.02", "--json", str(file)])
    printed = capsys.readouterr().out
    (result,) = json.loads(file.read_text("utf-8"))
    assert result["best_peer"] == {"name": "better", "score": 0.6}
    assert {"adapted", "frozen start", "last value"} <= set(result["runs"])
    assert "best member" in printed
    assert max(result["members"].values()) < result["runs"]["adapted"]["score"] + 0.1
    assert 0.0 < result["boosting_frozen"] < 0.9
    assert result["after_changes"]["adapted"] > result["after_changes"]["frozen start"]
    assert "best peer 0.6 (better)" in printed
    assert "after changes" in printed
