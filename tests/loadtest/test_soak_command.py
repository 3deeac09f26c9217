"""The soak: what counts as growing, and the command itself for three seconds."""

import json
from pathlib import Path

import pytest

from loadtest.soak.__main__ import main
from loadtest.soak.watch import BOUNDS, Sample, after_warm_up, lines, slopes


def run_of(minutes: int, **slope: float) -> list[Sample]:
    """Samples a minute apart that fill up to the end of the warm-up and then grow by so much."""
    start = {"resident_mb": 300.0, "descriptors": 40.0, "threads": 10.0}
    grown = {
        name: [value + slope.get(name, 0.0) * max(minute - minutes // 3, 0) for minute in range(minutes)]
        for name, value in start.items()
    }
    return [
        Sample(
            60.0 * minute,
            grown["resident_mb"][minute],
            int(grown["descriptors"][minute]),
            int(grown["threads"][minute]),
        )
        for minute in range(minutes)
    ]


@pytest.mark.parametrize("name", BOUNDS)
def test_what_grows_beyond_its_bound_is_named(name: str) -> None:
    """And nothing else is; growth that stays below it is none."""
    found = slopes(run_of(90, **{name: 8 * BOUNDS[name]}))
    assert [slope.name for slope in found if not slope.kept] == [name]
    assert all(slope.kept for slope in slopes(run_of(90, **{name: 0.4 * BOUNDS[name]})))


def test_a_peak_and_the_warm_up_are_no_growth() -> None:
    """A few samples far off do not move a slope, nor does what comes before the last two thirds."""
    samples = [sample._replace(resident_mb=100.0) if sample.seconds < 1_200 else sample for sample in run_of(90)]
    samples[-4] = samples[-4]._replace(resident_mb=900.0, threads=50)
    assert len(after_warm_up(samples)) == 60
    assert all(slope.kept for slope in slopes(samples))
    assert lines(slopes(samples))[2].startswith("| resident mb | 300.0 |")


def test_three_seconds_of_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All parts are played, everything is answered as it should be, and figures and picture are written."""
    main(["--minutes", "0.05", "--streams", "80", "--json", str(tmp_path / "soak.json")])
    told = json.loads((tmp_path / "soak.json").read_text("utf-8"))
    assert told["wrong"] == []
    assert told["answers"].keys() >= {"predict", "feedback", "many", "upload", "labels", "create", "delete", "look"}
    assert told["samples"][-1][0] >= 3
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert "does not tell whether anything grows" in capsys.readouterr().out
