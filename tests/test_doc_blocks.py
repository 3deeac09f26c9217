"""Every code block of the README and of the guides runs: requests, commands, scripts; JSON is JSON."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from models import Model, read_bundle, write_bundle
from models.types import Feature, Target
from service.app import create_app
from service.client import Client
from service.config import Settings
from tests.blocks_case import ROOT, Block, Workshop, blocks, commands
from tests.models.examples import HEAD, small_model, untrained
from tests.service.http_case import own_logs
from tests.service.socket_case import listening

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
    ROOT / "docs/examples/README.md",
]
LANGUAGES = {"sh", "python", "json"}
ELSEWHERE: Mapping[str, str] = {
    "docs/client.md": "tests/client/test_against_a_server.py runs it",
    "docs/open-inference-protocol.md": "tests/test_docs.py runs it and compares what it prints",
    "docs/dashboard.md": "tests of the dashboard open it in a browser",
}
SKIPPED: Mapping[str, str] = {
    "acclimate train": "takes minutes; tests/test_first_steps.py and tests/e2e/test_train.py run it",
    "acclimate serve": "does not end; the server of these tests is there already",
    "acclimate evaluate": "tests/test_first_steps.py runs it",
    "acclimate replay": "tests/test_first_steps.py runs it",
    "acclimate reshard": "wants a stopped server; tests/service/test_reshard.py runs it",
    "acclimate migrate-store": "wants a database; tests/service/test_migrate.py runs it",
    "acclimate keys revoke": "the key's id is an example",
    "curl -X POST localhost:8000/v1/webhooks": "asks a name server about the host; tests/service/test_webhooks.py",
}
"""Commands of ours that are not run, with the reason; those of acclimate are parsed all the same."""


def rides(classes: tuple[str, ...] = ("weekday", "weekend")) -> Model:
    """A model of the tutorial's columns, not trained."""
    small = small_model("regression", name="rides", expert=HEAD).spec
    features = (Feature("temperature"), Feature("rain"), Feature("day", "categorical", categories=classes))
    return untrained(replace(small, features=features, target=Target("rides")))


def pages_with_blocks() -> list[Path]:
    """Those that have something to run here."""
    return [
        page
        for page in PAGES
        if str(page.relative_to(ROOT)) not in ELSEWHERE and any(each.language in LANGUAGES for each in blocks(page))
    ]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server in a thread with the shipped models and `rides`, and what pages take for granted; its address."""
    (folder / "models").mkdir()
    bundle = folder / "rides.safetensors"
    bundle.write_bytes(write_bundle(rides()))
    files = {file.stem: file for file in (ROOT / "models/shipped").glob("*.safetensors")} | {"rides": bundle}
    found: list[str] = []
    ready, leave = threading.Event(), threading.Event()

    async def serve() -> None:
        application = create_app(Settings(data_dir=folder / "var", models=files))
        async with application.router.lifespan_context(application), listening(application) as address:
            found.append(address)
            ready.set()
            await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        yield found[0]
    finally:
        leave.set()
        thread.join(60)


def prepare(address: str, folder: Path, text: str) -> None:
    """Streams with a past, a data directory where commands look for one, and a next version of `rides`."""
    with Client(f"http://{address}") as client:
        rows = 150 if '"revision": 150' in text else 2
        client.stream("shop-3").create("rides")
        row = {"input": [15.0, 0, "weekday"], "target": 20.0}
        client.stream("shop-3").upload([row] * rows, batch=1)
        client.stream("lab-1").create("sinusoid")
        client.stream("lab-1").upload([{"input": [1.0], "target": 2.0}] * 12, batch=1)
    (folder / "rides.safetensors").write_bytes(write_bundle(rides(("weekday", "weekend", "holiday"))))
    (folder / "acclimate-data").symlink_to(folder / "var", target_is_directory=True)
    (folder / "backups").mkdir()
    (folder / "models/shipped").symlink_to(ROOT / "models/shipped", target_is_directory=True)


@pytest.mark.parametrize("page", pages_with_blocks(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder, against one server."""
    found = blocks(page)
    asks = any("curl" in block.text or "acclimate" in block.text for block in found if block.language == "sh")
    monkeypatch.chdir(tmp_path)
    with own_logs():
        if not asks:
            (tmp_path / "models").mkdir()
            (tmp_path / "models/shipped").symlink_to(ROOT / "models/shipped", target_is_directory=True)
            run_all(found, "127.0.0.1:9")
            return
        with served(tmp_path) as address:
            prepare(address, tmp_path, page.read_text("utf-8"))
            run_all(found, address)


def run_all(found: list[Block], address: str) -> None:
    """Each in turn."""
    workshop = Workshop(address, SKIPPED)
    for block in found:
        workshop.run(block)


def test_the_exceptions_are_needed() -> None:
    """An exception that no page has any more goes."""
    lines = {
        " ".join([words[0].removeprefix(".venv/bin/"), *words[1:]])
        for page in pages_with_blocks()
        for block in blocks(page)
        if block.language == "sh"
        for words in commands(block.text)
    }
    assert [begin for begin in SKIPPED if not any(line.startswith(begin) for line in lines)] == []
    assert [name for name in ELSEWHERE if not (ROOT / name).is_file()] == []


def test_what_does_not_work_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are not known, files that are not there, text that is no JSON."""
    monkeypatch.chdir(tmp_path)
    workshop = Workshop("127.0.0.1:9", SKIPPED)
    for language, text in (
        ("sh", "frobnicate --all"),
        ("sh", "acclimate inspect nothing.safetensors"),
        ("sh", "make no-such-target"),
        ("sh", "curl https://example.com/"),
        ("json", "{'a': 1}"),
        ("python", "assert False"),
        ("ruby", "a = 1"),
        ("python", "print(1)\n"),
        ("text", "2\n"),
    ):
        if text.startswith("print"):
            workshop.run(Block(language, text))
            continue
        with pytest.raises((AssertionError, ValueError)):
            workshop.run(Block(language, text))


def test_the_shipped_models_are_where_the_pages_say() -> None:
    """The path that scripts of the pages read."""
    assert read_bundle(ROOT / "models/shipped/sinusoid.safetensors").spec.name
