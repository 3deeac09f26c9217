"""``make demo``, the second command that anybody runs, goes to its end."""

import gzip
from pathlib import Path

import pytest

from service import demo


def test_the_demo_goes_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the first rows of its data, with a server of its own: all contenders, and the same score offline."""
    with gzip.open(demo.DATA, "rt", encoding="utf-8") as whole:
        (tmp_path / "some.csv").write_text("".join(line for line, _ in zip(whole, range(121), strict=False)), "utf-8")
    demo.run(batch=12, data=tmp_path / "some.csv", model=None, url="http://127.0.0.1:9")
    shown = capsys.readouterr().out
    for said in ("frozen start", "last value", "online SGD", "adapted", "over HTTP:", "the same rows offline"):
        assert said in shown
