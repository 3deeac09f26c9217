"""The dashboard in a real browser: Chromium, driven by Playwright; skipped where there is no Chromium."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no annotations
from playwright.sync_api import Browser, Page, expect, sync_playwright

from models import write_bundle
from service.keys import create_key
from service.shards import lay_out
from service.store import Create, SqliteStore
from tests.models.examples import small_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium (Debian: chromium) is not installed")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
MANY = 10_000
SERVE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from service.app import create_app\n"
    "from service.config import load_settings\n"
    "from service.server import run\n"
    "folder = Path(sys.argv[1])\n"
    "models = {'reg': folder / 'reg.safetensors', 'cls': folder / 'cls.safetensors'}\n"
    "settings = load_settings(port=0, data_dir=folder / 'data', models=models)\n"
    "run(create_app(settings), announce=lambda url: print(url, flush=True))\n"
)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a running server with two models."""
    for name, task in (("reg", "regression"), ("cls", "classification")):
        (folder / f"{name}.safetensors").write_bytes(write_bundle(small_model(task, name=name)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCLIMATE_")}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", SERVE, folder], stdout=subprocess.PIPE, stderr=log, env=environment
        ) as own,
    ):
        try:
            assert own.stdout is not None
            url = own.stdout.readline().decode().strip()
            assert url, (folder / "log").read_text()
            yield url
        finally:
            own.kill()


def teach(client: httpx.Client, stream: str, task: str, count: int, *, seed: int = 0) -> None:
    """Batches of four rows, with another world from the middle on."""
    client.put(f"/v1/streams/{stream}", json={"model": task}).raise_for_status()
    rng = np.random.default_rng(seed)
    for number in range(count):
        inputs = rng.normal(size=(4, 2)).round(3)
        values = (1.0 if number < count // 2 else -4.0) * inputs[:, 0] + 0.1 * rng.normal(size=4)
        targets = values.tolist() if task == "reg" else ["yes" if value > 0 else "no" for value in values]
        body = {"inputs": inputs.tolist(), "targets": targets}
        client.post(f"/v1/streams/{stream}/feedback", json=body).raise_for_status()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with many streams, two of which have learned and drifted."""
    folder = tmp_path_factory.mktemp("dashboard")
    store = SqliteStore(lay_out(folder / "data", 1).directories[0])
    store.write([Create(f"sensor-{number:05}", "reg", 1, {}, {}, 1.7e9) for number in range(MANY)])
    store.close()
    with served(folder) as found, httpx.Client(base_url=found, timeout=60) as client:
        teach(client, "shop-a", "reg", 60)
        teach(client, "shop-b", "cls", 20)
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        own = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield own
        own.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must have nothing to complain about."""
    own = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    own.on("pageerror", lambda error: complaints.append(str(error)))
    own.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield own
    own.close()
    assert [line for line in complaints if "401" not in line and "404" not in line] == []


def test_the_overview_shows_what_goes_on(page: Page, url: str) -> None:
    """Counts, charts and events; a reset shows up by itself."""
    page.goto(url)
    expect(page.get_by_role("status").filter(has_text="live")).to_be_visible()
    expect(page.locator(".tiles")).to_contain_text(f"{MANY + 2:,}")
    expect(page.locator("figure canvas")).to_have_count(3)
    events = page.get_by_role("region", name="Latest events")
    expect(events).to_contain_text("shop-a")
    expect(events).to_contain_text("re-adapted on")
    before = events.get_by_text("reset").count()
    httpx.post(f"{url}/v1/streams/sensor-00007/reset").raise_for_status()
    expect(events.get_by_text("reset")).to_have_count(before + 1)


def test_any_of_many_streams_is_found(page: Page, url: str) -> None:
    """Only what is in sight is in the page; the end is reached by scrolling, a name by searching."""
    page.goto(f"{url}/#/streams")
    lines = page.locator(".line")
    expect(lines.first).to_contain_text("sensor-00000")
    assert lines.count() < 100
    page.wait_for_function(
        """() => {
          const list = document.querySelector(".list");
          list.scrollTop = list.scrollHeight;
          return document.querySelector(".row [role=status]").textContent.endsWith("streams");
        }"""
    )
    expect(page.get_by_role("link", name="shop-b")).to_be_visible()
    assert lines.count() < 100
    page.get_by_label("Search").fill("sensor-0420")
    expect(lines).to_have_count(10)
    page.get_by_role("link", name="sensor-04207").press("Enter")
    expect(page.get_by_role("heading", name="sensor-04207", level=1)).to_be_visible()


def test_a_stream_shows_how_it_does_and_what_happened(page: Page, url: str) -> None:
    """Score against the frozen start, drift with its evidence and action, rows with what was predicted."""
    page.goto(f"{url}/#/streams/shop-a")
    expect(page.get_by_role("heading", name="shop-a", level=1)).to_be_visible()
    expect(page.locator("figure canvas")).to_have_count(3)
    expect(page.locator("figure").first).to_contain_text("frozen start")
    expect(page.get_by_role("region", name="Events")).to_contain_text("re-adapted on")
    expect(page.get_by_role("region", name="Recent rows").locator("tbody tr")).to_have_count(50)
    page.goto(f"{url}/#/streams/shop-b")
    expect(page.locator("figure").last).to_contain_text("rows right")


def test_buttons_ask_first_and_then_do_it(page: Page, url: str, tmp_path: Path) -> None:
    """Reset, roll back, snapshot; Escape leaves everything as it was."""
    page.goto(f"{url}/#/streams/shop-b")
    revision = page.locator(".tile", has_text="Revision").locator("dd")
    expect(revision).to_have_text("20")
    page.get_by_role("button", name="Reset").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(revision).to_have_text("21")
    page.get_by_role("button", name="Back to revision 20", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(revision).to_have_text("22")
    expect(page.get_by_role("region", name="Revisions")).to_contain_text("rollback to 20")
    with page.expect_download() as download:
        page.get_by_role("button", name="Snapshot").click()
        page.get_by_role("dialog").get_by_role("button", name="Save").click()
    download.value.save_as(tmp_path / "s")
    assert (tmp_path / "s").stat().st_size > 1_000
    page.goto(f"{url}/#/streams/nosuch")
    expect(page.get_by_role("alert")).to_contain_text("no stream")


def test_a_version_is_activated(page: Page, url: str) -> None:
    """Models, their versions and scores; after a question the other version is the active one."""
    other = write_bundle(small_model("classification", name="other"))
    headers = {"Content-Type": "application/octet-stream"}
    httpx.post(f"{url}/v1/models/cls/versions", content=other, headers=headers).raise_for_status()
    page.goto(f"{url}/#/models")
    page.get_by_role("button", name="Activate version 2 of cls").click()
    page.get_by_role("dialog").get_by_role("button", name="Activate").click()
    expect(page.get_by_role("button", name="Activate version 1 of cls")).to_be_visible()
    assert httpx.get(f"{url}/v1/models/cls").json()["active_version"] == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "#/streams", "#/streams/shop-a", "#/models"])
def test_nothing_is_in_the_way_of_a_screen_reader(browser: Browser, url: str, path: str, theme: str) -> None:
    """No finding of axe's, contrast included, in both themes."""
    own = browser.new_page(color_scheme="light" if theme == "light" else "dark")
    own.goto(f"{url}/{path}")
    expect(own.get_by_role("status").filter(has_text="live")).to_be_visible()
    expect(own.locator(".badge, .card h2").first).to_be_visible()
    found = Axe().run(own).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    own.close()


def test_the_keyboard_reaches_everything(page: Page, url: str) -> None:
    """The way past the menu first; a line's link opens its stream."""
    page.goto(f"{url}/#/streams")
    expect(page.locator(".line").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.line') !== null"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("sensor-"))


def test_a_theme_is_chosen_and_kept(page: Page, url: str) -> None:
    """Over a reload, too."""
    page.goto(url)
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_it_asks_for_a_key_where_one_is_needed(page: Page, tmp_path: Path) -> None:
    """A wrong one is asked for again; with a right one it works, and the key is in no address."""
    key = create_key(tmp_path / "data", "default", "admin")[1]
    with served(tmp_path) as url:
        page.goto(url)
        asked = page.get_by_role("textbox", name="Key")
        asked.fill("acl_wrong_key")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("dialog")).to_contain_text("does not take this key")
        asked.fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("status").filter(has_text="live")).to_be_visible()
        assert key not in page.url
        page.goto(f"{url}/#/streams")
        expect(page.get_by_text("0 streams")).to_be_visible()
        page.goto("about:blank")  # before the server ends: what it leaves open would be complained about
