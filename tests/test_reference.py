"""The pages of docs/reference are what the code says."""

from pathlib import Path

import pytest

from docs import generate


def test_the_reference_is_what_the_code_says() -> None:
    """`make reference` would change nothing."""
    assert sorted(generate.stale()) == []


def test_what_has_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are not there, or say something else, are named."""
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"metrics.md": generate.PAGES["metrics.md"]})
    (tmp_path / "metrics.md").write_text("# Metrics\n", "utf-8")
    assert list(generate.stale()) == ["metrics.md"]
