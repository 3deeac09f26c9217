"""What the command line says of itself: help with examples that are right, completion, and figures as JSON."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from models import write_bundle
from service.cli import app
from service.commands.examples import EXAMPLES
from tests.models.examples import small_model, write_rows

GROUP: Any = typer.main.get_command(app)


def declared(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """All commands by their words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from declared(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(declared(GROUP))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_examples_that_are_right(name: str) -> None:
    """Each begins with the command, has options that exist and values that fit, and stands in the help."""
    shown = " ".join(CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output.split())
    assert EXAMPLES[name]
    for line in EXAMPLES[name]:
        words = shlex.split(line)
        start = len(name.split()) + 1
        assert words[:start] == ["acclimate", *name.split()]
        COMMANDS[name].make_context(name, words[start:])
        assert line in shown


def test_no_example_is_of_a_command_that_has_gone() -> None:
    """The table has the commands that there are."""
    assert set(EXAMPLES) == set(COMMANDS)


def test_the_shell_completes_commands() -> None:
    """As bash asks for them."""
    asked = {"_ACCLIMATE_COMPLETE": "complete_bash", "COMP_WORDS": "acclimate re", "COMP_CWORD": "1"}
    answer = CliRunner().invoke(app, [], env=asked, prog_name="acclimate").output
    assert set(answer.split()) == {name for name in COMMANDS if name.startswith("re")}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_inspect_prints_a_bundle_s_header_as_json(task: str, tmp_path: Path) -> None:
    """The header's parts by name, and every tensor's shape."""
    file = tmp_path / "small.safetensors"
    model = small_model(task)
    file.write_bytes(write_bundle(model))
    found = CliRunner().invoke(app, ["inspect", str(file), "--json"])
    body = json.loads(found.output)
    assert (body["name"], body["task"]) == ("small", task)
    assert [feature["name"] for feature in body["features"]] == ["a", "b"]
    assert {name: each["shape"] for name, each in body["tensors"].items()} == {
        name: list(tensor.shape) for name, tensor in model.meta.items()
    }


def test_train_writes_its_scores_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table shows, what was chosen, and which file it is about."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", 90, 2)
    words = (
        "train --data rows.csv --target y --stream-column shop --time-column t --lag-target 0 --algorithm bayes_head"
    )
    found = CliRunner().invoke(app, [*words.split(), "--budget", "0.01", "--json", "scores.json"])
    assert found.exit_code == 0, found.output
    body = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert body["model"] == "model.safetensors"
    assert {"frozen start", "adapted"} <= set(body["scores"])
    assert body["choices"]


def test_a_file_for_json_without_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    """In one line that says what to do."""
    file = write_rows(tmp_path / "rows.csv", 90, 2)
    words = ["train", "--data", str(file), "--target", "y", "--json", str(tmp_path / "nowhere/scores.json")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1
    assert "there is no such folder" in " ".join(found.output.split())
