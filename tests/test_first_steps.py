"""The README's five commands, from a CSV to served predictions, as they stand there."""

import csv
import json
import random
import re
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from loadtest.server import serving
from models import use_threads
from service.cli import app
from tests.blocks_case import ROOT, blocks, commands

QUICK = ["--algorithm", "bayes_head", "--budget", "0.02"]
"""One expert for a second in place of a committee for a minute: what the commands do stays the same."""
HOURS = 50


def five_commands(page: str) -> list[list[str]]:
    """The block that begins with a training, in words."""
    found = (block for block in blocks(ROOT / page) if block.text.startswith(".venv/bin/acclimate train"))
    return list(commands(next(found).text))


def write_rides(file: Path) -> None:
    """Three shops of the README's columns; in the last third of the hours warmth keeps people at home."""
    chance = random.Random(0)
    with file.open("w", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["hour", "shop", "temperature", "rain", "day", "rides"])
        for hour in range(HOURS):
            for shop, warmth in (("shop-1", 1.0), ("shop-2", 2.0), ("shop-3", 1.5)):
                turned = -1 if hour > HOURS * 2 // 3 else 1
                temperature, rain = chance.uniform(5, 30), int(chance.random() < 0.3)
                day = chance.choice(["weekday", "weekend"])
                known = turned * warmth * (temperature - 17.5) - 10 * rain + 5 * (day == "weekday")
                rides = 90 + known + chance.gauss(0, 1)
                table.writerow([hour, shop, round(temperature, 1), rain, day, round(rides, 1)])


def acclimate(words: list[str]) -> str:
    """What a command prints."""
    found = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert found.exit_code == 0, found.output
    return found.output


def test_the_readme_s_five_commands_serve_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, evaluate, serve, replay, ask: a file of one's own is adapted to, and answered about."""
    train, evaluate, serve, replay, ask = five_commands("README.md")
    assert [words[1] for words in (train, evaluate, serve, replay)] == ["train", "evaluate", "serve", "replay"]
    monkeypatch.chdir(tmp_path)
    write_rides(tmp_path / "rides.csv")
    use_threads(1)
    stated = train.index("--budget")
    acclimate([*train[1:stated], *train[stated + 2 :], *QUICK])
    assert "adapted" in acclimate(evaluate[1:])
    assert (tmp_path / "rides.png").is_file()
    with serving(serve[2:], data_dir=tmp_path / "acclimate-data") as server:
        played = [word.replace("http://127.0.0.1:8000", server.url) for word in replay[1:]]
        told = acclimate([*played, "--json", "played.json"])
        frozen, adapted = (float(value) for value in re.findall(r"frozen start (\S+) → adapted ([\d.]+)", told)[0])
        assert adapted < frozen
        results = json.loads((tmp_path / "played.json").read_text("utf-8"))["results"]
        assert [each["score"] for each in results] == pytest.approx([frozen, adapted], rel=1e-3)
        method, url, body = ask[2], ask[3].replace("localhost:8000", server.url), ask[ask.index("-d") + 1]
        answer = httpx.request(method, url, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["stream"], said["model"], said["stream_version"]) == ("shop-3", "rides", HOURS)
    ((low, high),) = said["intervals"]
    assert low < said["predictions"][0] < high


def test_the_tutorial_has_the_same_five() -> None:
    """One way, told twice."""
    assert five_commands("docs/tutorial.md") == five_commands("README.md")
