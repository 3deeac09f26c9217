"""What the project is made of: nothing is unpickled, everything is pinned and has a licence."""

import ast
import re
from pathlib import Path

import pytest

SOURCES = sorted(file for folder in ("models", "service", "loadtest") for file in Path(folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "yaml"}
"""What makes objects, or runs code, out of bytes."""
CALLS = {"load": {"torch", "np", "numpy"}, "eval": {""}, "exec": {""}, "compile": {""}}
"""Functions that do, by where they are called from."""


def unsafe(tree: ast.AST) -> list[str]:
    """What of a source could make objects or code out of bytes."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            of = getattr(function.value, "id", "?") if isinstance(function, ast.Attribute) else ""
            if of in CALLS.get(name, ()) or any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                found.append(f"{of}.{name}")
    return found


@pytest.mark.parametrize("file", SOURCES, ids=str)
def test_nothing_is_unpickled(file: Path) -> None:
    """No module that unpickles is imported, no function that does is called, no code is made from text."""
    assert unsafe(ast.parse(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "eval(x)",
        "import yaml",
    ],
)
def test_what_unpickles_would_be_noticed(text: str) -> None:
    """The search finds what it is there for."""
    assert unsafe(ast.parse(text))


def test_everything_that_is_pinned_has_a_licence() -> None:
    """Each with its version, in the list of licences."""
    pinned = [line for line in Path("constraints.txt").read_text("utf-8").splitlines() if "==" in line]
    rows = re.findall(r"(?m)^\| (\S+) \| (\S+) \| (.+) \|$", Path("docs/licences.md").read_text("utf-8"))
    assert {f"{name}=={version}" for name, version, licence in rows[2:] if licence.strip()} == set(pinned)
