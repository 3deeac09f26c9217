"""The benchmarks of streams that switch: their commands, shortened; their figures; and the promise of few alarms."""

import json
import math
from pathlib import Path

import pytest
import torch

from loadtest import detection, switching
from models import DETECTORS, DetectorChoice

DOCS = Path(__file__).parents[2] / "docs"


def test_the_switching_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shortened run gives every policy's row and all figures as JSON, and does not judge the targets."""
    figures = tmp_path / "out" / "figures.json"
    sizes = ["--seeds", "1", "--streams", "3", "--steps", "12", "--share", "0.001"]
    assert switching.main([*sizes, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "targets are not judged" in printed
    found = json.loads(figures.read_text("utf-8"))["nats_a_row"]
    assert found.keys() == switching.POLICIES.keys()
    for name in found:
        assert f"| {name} |" in printed
        assert all(math.isfinite(figure["mean"]) for figure in found[name].values())


def test_the_detection_command_lists_every_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shortened run gives every detector's row and all figures as JSON, and does not judge the targets."""
    figures = tmp_path / "figures.json"
    sizes = ["--streams", "4", "--batches", "12", "--scan-streams", "2", "--steady-streams", "1", "--share", "0.001"]
    assert detection.main([*sizes, "--json", str(figures)]) == 0
    assert "targets are not judged" in capsys.readouterr().out
    found = json.loads(figures.read_text("utf-8"))
    assert found["defaults"].keys() == DETECTORS.keys() == detection.SCANS.keys()
    assert len(found["steady"]) == len(detection.NOISES) + 1


def test_alarms_are_matched_with_changes() -> None:
    """The first alarm after a change finds it; others are false; a change overtaken by the next is missed."""
    changed, alarms = torch.zeros(1, 100, dtype=torch.bool), torch.zeros(1, 100, dtype=torch.bool)
    changed[0, [20, 50, 52]] = True
    alarms[0, [5, 20, 23, 54]] = True  # none of these is for the change at 50
    found = detection.judge(alarms, changed)
    assert found == detection.Found(3, 100, 1 / 3, 1.0, 20.0)
    assert found.waiting == pytest.approx((0 + 2 + 30) / 3)


def test_the_default_keeps_its_promise_where_nothing_changes() -> None:
    """Numbers, with heavy tails and gross outliers too, and classes: alarms stay under the stated rate + 2 sigma."""
    meta, classes = switching.prior(0, 0.1, detection.FAMILY), detection.class_prior(0, 0.2)
    found = detection.steady(meta, classes, DetectorChoice(), 100, 100)
    assert len(found) == len(detection.NOISES) + 1
    assert max(found.values()) <= detection.bound(10_000)


def test_documented_switching_figures_are_the_measured_ones() -> None:
    """The page shows every figure of the committed JSON, and they reach the targets."""
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    report = json.loads((DOCS / "benchmarks" / "switching.json").read_text("utf-8"))
    for name, found in report["nats_a_row"].items():
        oracle = name == switching.ORACLE
        shown = [(one["mean"] if oracle else one["behind_oracle"], one["interval_95"]) for one in found.values()]
        cells = [f"{value:{'' if oracle else '+'}.3f} ± {interval:.3f}" for value, interval in shown]
        assert f"| {name} | {' | '.join(cells)} |" in page
    assert report["missed"] == []
    assert report["share"] == 1.0


def test_documented_detection_figures_are_the_measured_ones() -> None:
    """The page shows every detector's figures of the committed JSON, and of the streams where nothing changes."""
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    report = json.loads((DOCS / "benchmarks" / "detection.json").read_text("utf-8"))
    for name, fields in report["defaults"].items():
        found = detection.Found(**fields)
        assert f"| `{name}` | {found.delay:.2f} | {found.missed:.1%} | {found.false_alarms:.3f} |" in page
    for name, rate in report["steady"].items():
        assert f"| {name} | {rate:.3f} | {report['steady_bound']:.3f} |" in page
        assert rate <= report["steady_bound"]
    assert report["share"] == 1.0
