"""The worked examples run, at a small size, and what they claim holds there too."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
PAGE = (EXAMPLES / "README.md").read_text("utf-8")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs an example's ``main`` as the script would, with what it imports from its own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run_main(name: str, *given: object, **sizes: object) -> Any:
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*given, **sizes)

    yield run_main
    sys.modules.pop("common", None)


def test_every_example_is_on_the_page() -> None:
    """With a link, and the command that runs it."""
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"common"}
    assert scripts == set(re.findall(r"\]\((\w+)\.py\)", PAGE))
    for name in scripts:
        assert f"docs/examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text("utf-8")


def test_few_shot_learns_a_person_s_gestures(run: Any, tmp_path: Path) -> None:
    """Classes that no other stream has are far above the frozen start's chance, within twenty rows already."""
    found = run("few_shot", tmp_path, people=30, rows=50, budget=0.05)
    assert found["frozen"] < 0.35
    assert found["adapted"] > found["frozen"] + 0.25
    assert found["first20"] > found["frozen"]


def test_sensors_are_calibrated_by_their_labels(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Less than two thirds of the frozen start's error, intervals that hold, and a plot."""
    found = run("sensors", tmp_path, sensors=14, hours=120, budget=0.05)
    assert found["score"] < 0.66 * found["frozen"]
    assert 0.7 < found["coverage"] <= 1.0
    assert (tmp_path / "sensors.png").read_bytes().startswith(b"\x89PNG")
    assert "in 90%" in capsys.readouterr().out


def test_recommendations_follow_the_ratings(run: Any, tmp_path: Path) -> None:
    """Twenty ratings make a better list than none."""
    found = run("recommendation", tmp_path, users=50, ratings=25, budget=0.05)
    assert found["after_20"] > found["after_0"] + 0.2


def test_many_clients_share_a_body(run: Any, tmp_path: Path) -> None:
    """A head for each shop beats one model for all, and each shop's own network."""
    found = run("many_clients", tmp_path, shops=60, days=30, budget=0.1)
    assert found["adapted"] < found["frozen start"]
    assert found["adapted"] < found["online SGD"]


def test_search_tries_sizes_within_its_budget(run: Any, tmp_path: Path) -> None:
    """Eight networks, then four, then two; the one that is taken was in the last round."""
    found = run("search", tmp_path, machines=10, rows=40, budget=0.1)
    assert found["tried"] == 14
    assert found["last_round"] == 1.0


def test_forecasts_hold_what_they_promise(run: Any) -> None:
    """The shares of labels inside are near the stated levels, and rise with them."""
    shares = run("forecasts", rows=120)
    for level, share in shares.items():
        assert share == pytest.approx(level, abs=0.15)
    assert sorted(shares.values()) == list(shares.values())
