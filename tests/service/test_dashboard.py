"""The dashboard's files: served as they are, to everybody, and asking nobody but this server."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from service.keys import KeyRing, create_key
from tests.service.http_case import assert_problem, run_async, serving

FOLDER = Path(str(files("service") / "dashboard"))
OURS = sorted(path for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js", ".svg"})


@run_async
async def test_the_page_and_all_that_it_loads_are_served_without_a_key(tmp_path: Path) -> None:
    """The page has no data, what it asks for does; nothing but this server may run in it."""
    create_key(tmp_path, "default", "predict")
    async with serving(keys=KeyRing(tmp_path)) as (client, _):
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        loaded = set(re.findall(r'(?:href|src)="(/dashboard/[^"]+)"', page.text))
        pending = sorted(loaded)
        while pending:
            path = pending.pop()
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            for name in re.findall(r'from "\./([^"]+)"', answer.text):
                if (found := f"/dashboard/{name}") not in loaded:
                    loaded.add(found)
                    pending.append(found)
        assert loaded == {f"/dashboard/{path.name}" for path in OURS} - {"/dashboard/index.html"}
        assert (await client.head("/")).headers["content-length"] == page.headers["content-length"]
        assert_problem(await client.get("/v1/overview"), 401)


@pytest.mark.parametrize("name", ["nosuch.js", "uPlot.LICENSE", "..%2Froutes%2Fdashboard.py", "%2Fetc%2Fpasswd"])
@run_async
async def test_nothing_else_is_served(name: str) -> None:
    """Neither files that the page does not load nor any outside the folder."""
    async with serving() as (client, _):
        assert_problem(await client.get(f"/dashboard/{name}"), 404)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_is_asked_of_anybody_else(path: Path) -> None:
    """No text is the address of another host, but for the name of SVG's namespace."""
    text = path.read_text()
    assert set(re.findall(r"""["'`(](?:https?:|wss?:)?//([a-z0-9.-]+)""", text)) <= {"www.w3.org"}
    assert "innerHTML" not in text or path.name == "uPlot.js"


def test_the_vendored_library_has_its_licence_beside_it() -> None:
    """It is under MIT."""
    assert "Permission is hereby granted" in (FOLDER / "uPlot.LICENSE").read_text()
