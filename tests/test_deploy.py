"""The files that build and ship the service keep their promises; running the image is `make image-test`."""

import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = (
    "Makefile",
    "Dockerfile",
    "compose.yaml",
    "constraints.txt",
    ".ci/run",
    "deploy/build_image.sh",
    "deploy/kubernetes.yaml",
)


def text(name: str) -> str:
    """A file of the project."""
    return (ROOT / name).read_text("utf-8")


def final_stage() -> str:
    """The part of the Dockerfile that makes the image."""
    return "FROM" + text("Dockerfile").rpartition("\nFROM")[2]


@pytest.mark.parametrize("name", SHIPPED)
def test_no_file_names_where_packages_come_from(name: str) -> None:
    """Registries are given at build time; a file that names one breaks wherever it cannot be reached."""
    assert re.findall(r"https?://[\w.-]+\.[a-z]{2,}|--find-links\s+/|--extra-index-url\s+\S*//", text(name)) == []


def test_constraints_pin_every_dependency() -> None:
    """What is installed today and in a year is the same: each direct dependency has its version."""
    project = tomllib.loads(text("pyproject.toml"))["project"]
    direct = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    wanted = {re.split(r"[\[><=]", item)[0].lower() for item in direct}
    pinned = {line.partition("==")[0].lower() for line in text("constraints.txt").splitlines() if "==" in line}
    assert wanted - pinned == set()


def test_image_keeps_nothing_of_its_build() -> None:
    """The final stage declares no build argument, installs no package and names no index."""
    assert re.findall(r"(?m)^ARG|pip|INDEX|apt-get", final_stage()) == []


def test_image_runs_as_nobody_in_particular() -> None:
    """A fixed user above 10,000 in group 0, by number, so that a platform can check it."""
    user = re.search(r"(?m)^USER (\d+):(\d+)$", final_stage())
    assert user is not None
    assert int(user[1]) > 10_000
    assert int(user[2]) == 0


def test_image_stops_by_sigterm_without_a_shell_between() -> None:
    """The exec form makes the server process 1, so that the signal arrives."""
    stage = final_stage()
    assert 'ENTRYPOINT ["acclimate"]' in stage
    assert "STOPSIGNAL SIGTERM" in stage
    assert len(re.findall(r"(?m)^VOLUME", stage)) == 1


def test_image_does_not_open_itself_to_strangers() -> None:
    """Serving without keys beyond loopback is a decision of whoever runs the image."""
    assert not re.search(r"(?m)^(ENV.*|\s+)ACCLIMATE_ALLOW_ANONYMOUS=", final_stage())


@pytest.mark.parametrize("name", [".ci/run", "deploy/build_image.sh"])
def test_scripts_can_be_run(name: str) -> None:
    """They are executable and say what reads them."""
    assert os.access(ROOT / name, os.X_OK)
    assert text(name).startswith("#!/usr/bin/env bash\n")


def test_every_target_of_make_says_what_it_does() -> None:
    """`make` alone lists each phony target with a sentence."""
    makefile = text("Makefile")
    phony = re.search(r"(?m)^\.PHONY: (.*)$", makefile)
    assert phony is not None
    described = set(re.findall(r"(?m)^([a-z-]+):.*## \S", makefile))
    assert set(phony[1].split()) == described
