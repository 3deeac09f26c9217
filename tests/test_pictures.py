"""The pictures of docs/concepts.md are drawn by the project, by scripts that run."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/concepts.md").read_text("utf-8")
LESS = {"forgetting": {"ROWS": 60}, "start": {"STEPS": 20}}
"""What makes a script quick; pictures of the page are drawn without."""
SCRIPTS = sorted(file.stem for file in (ROOT / "docs/pictures").glob("[a-z]*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_draws_a_picture_of_the_page(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a name that the page shows and that is there, with a description for those who cannot see it."""
    module = import_module(f"docs.pictures.{script}")
    for name, value in LESS.get(script, {}).items():
        monkeypatch.setattr(module, name, value)
    draw: Callable[[Path], Path] = module.draw
    drawn = draw(tmp_path)
    assert drawn.read_text("utf-8").count("<path") > 10
    (description,) = re.findall(rf"!\[(.+)\]\(images/{drawn.name}\)", PAGE)
    assert len(description) > 15
    assert (ROOT / "docs/images" / drawn.name).is_file()


def test_the_drifting_stream_is_as_the_page_says() -> None:
    """An alarm within ten rows of each jump and no other; the adapted stream has less than half the error."""
    drift = import_module("docs.pictures.drift")
    found = drift.course()
    assert len(found.alarms) == len(drift.CHANGES)
    for alarm, change in zip(found.alarms, drift.CHANGES, strict=True):
        assert 0 <= alarm - change < 10
    assert found.adapted.mean() < found.frozen.mean() / 2


def test_every_picture_of_the_page_has_a_script() -> None:
    """No picture comes from elsewhere."""
    assert len(re.findall(r"!\[", PAGE)) == len(SCRIPTS)
