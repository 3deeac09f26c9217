"""Documentation is under test: what it names exists, and its example runs and answers as printed."""

import asyncio
import json
import re
import shlex
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from typer.testing import CliRunner

from models.detectors import DETECTORS
from models.learners import LEARNERS
from service.app import create_app
from service.cli import app as commands
from service.config import Settings
from service.problems import is_open
from service.routes import ROUTERS
from tests.service.http_case import run_async
from tests.service.socket_case import listening

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs/open-inference-protocol.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "data/README.md",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    """Every relative link of a document is a file of the project."""
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_named_exist(document: Path) -> None:
    """Every `make X` of a document is a target."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


def test_the_index_and_the_site_lead_to_every_page() -> None:
    """No page of docs/ is without a link from docs/README.md and a place in the site's menu, decisions aside."""
    index, site = (ROOT / "docs/README.md").read_text("utf-8"), (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = {
        str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "adr"
    }
    assert sorted(page for page in pages - {"README.md"} if f"]({page})" not in index) == []
    assert sorted(page for page in pages if f"{page}\n" not in site) == []


def test_folders_of_the_map_exist() -> None:
    """The README's map shows the house as it is."""
    folders = re.findall(r"^\| `([a-z]+/)` \|", README, re.MULTILINE)
    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_both_readmes_have_the_same_code() -> None:
    """The Chinese README says the same in other words: the same blocks and figures; each leads to the other."""
    chinese = (ROOT / "README.zh.md").read_text("utf-8")
    blocks = re.compile(r"(?ms)^```.*?^```$")
    strip = re.compile(r"(?m) +#.*$")  # what is remarked on commands may be in either language
    assert [strip.sub("", text) for text in blocks.findall(chinese)] == [
        strip.sub("", text) for text in blocks.findall(README)
    ]
    figures = [re.findall(r"\d+\.\d+", line) for line in README.splitlines() if line.startswith("| ")]
    assert [re.findall(r"\d+\.\d+", line) for line in chinese.splitlines() if line.startswith("| ")] == figures
    assert "](README.md)" in chinese
    assert "](README.zh.md)" in README


def test_every_learner_and_detector_is_named() -> None:
    """Nobody has to read the code to find out what there is."""
    assert [name for name in (*LEARNERS, *DETECTORS) if f"`{name}`" not in README] == []


def test_options_of_the_example_commands_exist() -> None:
    """Each `acclimate` line of the README uses options that the command has."""
    lines = re.findall(r"^\.venv/bin/acclimate (\w+) (.*)$", README, re.MULTILINE)
    assert {command for command, _ in lines} == {"train", "evaluate", "serve", "replay"}
    for command, rest in lines:
        text = CliRunner().invoke(commands, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert [option for option in re.findall(r"--[a-z-]+", rest) if option not in text] == []


def test_the_first_example_answers_as_printed(tmp_path: Path) -> None:
    """The README's three requests against the shipped model give the README's reply."""
    calls = re.findall(r"^curl -X (\w+) +(.*(?:\n +.*)*)", README, re.MULTILINE)[:3]
    printed = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    responses = asyncio.run(answers(tmp_path, calls))
    assert [response.status_code for response in responses] == [201, 200, 200]
    reply = responses[-1].json()
    assert reply.keys() == printed.keys()
    assert reply["predictions"] == pytest.approx(printed["predictions"], rel=1e-4)
    assert reply["std"] == pytest.approx(printed["std"], rel=1e-4)


@run_async
async def test_the_protocol_s_example_prints_what_the_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's script, run against the shipped model on a port of its own, with a foreign client."""
    (script,) = re.findall(r"```python\n(.*?)```", PROTOCOL, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", PROTOCOL, re.DOTALL)
    application = create_app(Settings(data_dir=tmp_path))
    async with application.router.lifespan_context(application), listening(application) as address:
        code = compile(script.replace("localhost:8000", address), "open-inference-protocol.md", "exec")
        await asyncio.to_thread(exec, code, {})
    shown = [line for line in capsys.readouterr().out.splitlines() if "stream_version" in line]
    assert shown == printed.splitlines()


def test_the_protocol_s_routes_are_on_its_page() -> None:
    """Every path below /v2, in full or as the end of another one."""
    paths = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    cells = " ".join(re.findall(r"^\| (`.*?`) \|", PROTOCOL, re.MULTILINE))
    for path in paths:
        if is_open(path):
            end = path.replace("/v2/models/{model}", "…") if "{version}" in path else path
            assert f"{end}`" in cells


async def answers(folder: Path, calls: list[tuple[str, str]]) -> list[httpx.Response]:
    """The replies to curl commands, from a server with the shipped models."""
    application = create_app(Settings(data_dir=folder))
    transport = httpx.ASGITransport(application)
    found = []
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client,
    ):
        for method, rest in calls:
            words = shlex.split(rest.replace("\\\n", " "))
            body = words[words.index("-d") + 1]
            response = await client.request(
                method, f"http://{words[0]}", content=body, headers={"content-type": "application/json"}
            )
            found.append(response)
    return found
