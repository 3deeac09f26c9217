"""What a reader would do with a page's code blocks: a workshop in which commands, scripts and JSON are run.

``curl`` asks a server on a port of its own, ``acclimate`` runs in this process, ``make`` targets have to exist.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import httpx
import typer
from typer.testing import CliRunner

from service.cli import app

ROOT = Path(__file__).parents[1]
TARGETS = frozenset(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
TOOLS: Mapping[str, str] = {
    "createdb": "wants a database server",
    "docker": "wants an engine",
    "git": "wants a network",
    "helm": "wants a cluster",
    "kubectl": "wants a cluster",
    "pip": "wants a package index",
}
"""Programs of others that pages may name without their being run, with the reason."""
SHOWN = frozenset({"text", "yaml", "ini"})
"""Languages of blocks that are there to be read."""
ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):\d+")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: What stands behind the fence.
        text: The lines between, without the indentation of a list.
    """

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page in order."""
    found = []
    for indent, language, text in re.findall(r"(?ms)^( *)```(\w+)\n(.*?)^ *```$", page.read_text("utf-8")):
        found.append(Block(language, re.sub(rf"(?m)^{indent}", "", text)))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, in words; a pipe is a word of its own.

    Lines are joined while they end in a backslash or a pipe, or a quotation is open.
    """
    pending = ""
    for line in text.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation goes on
            pending += "\n"
            continue
        if words and words[-1] == "|":
            pending += " "
            continue
        pending = ""
        for part in _split(words, "&&"):
            if part:
                yield part
    assert not pending, f"an open end: {pending}"


def _split(words: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == at:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


class Workshop:
    """Runs blocks one after the other, as in one terminal and one Python session."""

    def __init__(self, address: str, skipped: Mapping[str, str]) -> None:
        """Begin.

        Args:
            address: Of the server, HOST:PORT.
            skipped: First words of commands that are not run, with the reason; those of ``acclimate`` are parsed.
        """
        self._address = address
        self._skipped = skipped
        self._names: dict[str, Any] = {}
        self._variables: dict[str, str] = {}
        self._printed = ""

    def run(self, block: Block) -> None:
        """Run a block; an AssertionError says what did not work. Text behind a script is what the script printed."""
        printed, self._printed = self._printed, ""
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            source = ADDRESS.sub(self._address, block.text)
            with redirect_stdout(StringIO()) as shown:
                exec(compile(source, "a block", "exec"), self._names)
            self._printed = shown.getvalue()
        elif block.language == "sh":
            for words in commands(block.text):
                self._command(words)
        else:
            assert block.language in SHOWN, f"{block.language} blocks are not known here"
            assert printed in {"", block.text}

    def _command(self, words: list[str]) -> None:
        first, *rest = (part for part in _split(words, "|"))
        given = self._said(first) if rest else ""
        while re.fullmatch(r"[A-Z_]+=.*", first[0]):  # a variable of the command
            first = first[1:]
        words = [Template(word).safe_substitute(self._variables) for word in (rest[0] if rest else first)]
        name = words[0].removeprefix(".venv/bin/")
        line = " ".join([name, *words[1:]])
        reasons = [begin for begin in self._skipped if line.startswith(begin)]
        if reasons and name != "acclimate":
            return
        if name == "acclimate":
            self._acclimate(words[1:], parse=bool(reasons))
        elif name == "curl":
            self._curl(words[1:], given)
        elif name == "make":
            assert words[1] in TARGETS
        elif name == "python":
            assert (ROOT / words[1]).is_file()
        elif name not in {"cd", *TOOLS}:
            raise AssertionError(f"{name} is neither run nor among the exceptions")

    def _said(self, words: list[str]) -> str:
        """What printf prints: its further words, a line each."""
        assert words[:2] == ["printf", "%s\\n"]
        return "".join(f"{word}\n" for word in words[2:])

    def _acclimate(self, words: list[str], *, parse: bool) -> None:
        if parse:
            group: Any = typer.main.get_command(app)
            command = group.commands[words[0]]
            if not hasattr(command, "commands"):
                command.make_context(words[0], list(words[1:]))
            return
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, f"acclimate {' '.join(words)}: {found.output}"
        key = re.search(r"acl_\S+", found.output)
        if key:
            self._variables["KEY"] = key[0]

    def _curl(self, words: list[str], given: str) -> None:
        method, url, target, follow = "", "", "", False
        headers: dict[str, str] = {}
        body: bytes | None = None
        rest = iter(words)
        for word in rest:
            if word in {"-X", "-H", "-d", "--data-binary", "-o"}:
                value = next(rest)
                if word == "-X":
                    method = value
                elif word == "-H":
                    name, _, said = value.partition(":")
                    headers[name] = said.strip()
                elif word == "-o":
                    target = value
                elif value == "@-":
                    body = given.encode()
                else:
                    body = Path(value[1:]).read_bytes() if value.startswith("@") else value.encode()
            elif word == "-N":
                follow = True
            else:
                assert not word.startswith("-"), f"curl {word} is not known here"
                url = ADDRESS.sub(self._address, word if "://" in word else f"http://{word}")
        assert self._address in url, f"{url} is another host"
        method = method or ("GET" if body is None else "POST")
        with httpx.stream(method, url, headers=headers, content=body, timeout=30) as answer:
            endless = follow and headers.get("accept") == "text/event-stream"
            content = b"" if endless and answer.status_code == 200 else answer.read()
            assert answer.status_code < 400, f"{method} {url}: {content.decode()}"
        if target:
            Path(target).write_bytes(content)
