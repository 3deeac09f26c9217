"""Uploads beside River: rows are dealt to streams, and a ratio is taken turn by turn."""

import gzip
import json
from pathlib import Path

import pytest

from loadtest.upload_rate import _result, body_of, lines, main, rows_of


def test_rows_are_dealt_to_streams_in_turn(tmp_path: Path) -> None:
    """In the model's order of features; the columns that name the stream and the time are no inputs."""
    path = tmp_path / "elec2.csv.gz"
    path.write_bytes(gzip.compress(b"stream,t,a,b,label\nnsw,0,1,2,0\nnsw,1,3,4,1\nnsw,2,5,6,1\nnsw,3,7,8,0\n"))
    rows = rows_of(path, 3)
    assert [row.label for row in rows] == [0, 1, 1]
    sent = [json.loads(line) for line in body_of(rows, ["b", "a"], 2, "x").splitlines()]
    assert [line["stream"] for line in sent] == ["x-0", "x-1", "x-0"]
    assert sent[2] == {"stream": "x-0", "model": "elec2", "input": [6, 5], "target": 1}


def test_a_ratio_is_river_s_time_over_ours() -> None:
    """The median over turns, with its range; a case without a target has none."""
    turns = [{"cpu": 1.0, "wall": 2.0, "ARF": 20.0 + turn, "logistic": 0.5} for turn in range(3)]
    result = _result(64, 1, 1_000_000, turns)
    assert lines(result) == [
        "| 64 streams, batches of 1 | 1.0 | 500,000 | ARF 21.0 | 21.00 (20.00 to 22.00) | 15.0 |",
        "| 64 streams, batches of 1 | 1.0 | 500,000 | logistic 0.5 | 0.50 (0.50 to 0.50) | - |",
    ]


def test_the_file_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """With a folder."""
    with pytest.raises(SystemExit):
        main([])
    assert "--data" in capsys.readouterr().err
