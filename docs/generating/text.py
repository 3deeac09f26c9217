"""Docstrings and tables as Markdown."""

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

HEADINGS = ("Args", "Attributes", "Example", "Raises", "Reference", "References", "Returns")


class Docstring(NamedTuple):
    """A Google docstring in parts.

    Attributes:
        text: What stands before the first heading, as Markdown.
        entries: Arguments or attributes by name.
        references: Papers and the like.
    """

    text: str
    entries: dict[str, str]
    references: tuple[str, ...]


def parsed(documented: Any) -> Docstring:
    """The docstring of a class or function."""
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in inspect.cleandoc(documented.__doc__ or "").splitlines():
        if line.endswith(":") and line[:-1] in HEADINGS:
            heading = line[:-1]
            parts[heading] = []
        elif line and not line.startswith(" ") and heading:
            heading = ""  # text goes on after a section
            parts[""] += ["", line]
        else:
            parts[heading].append(line)
    entries: dict[str, str] = {}
    for section in ("Args", "Attributes"):
        entries |= _entries(parts.get(section, ()))
    lines = [line.strip() for name in ("Reference", "References") for line in parts.get(name, ()) if line.strip()]
    return Docstring(markdown("\n".join(parts[""])), entries, tuple(_joined(lines)))


def _joined(lines: Iterable[str]) -> list[str]:
    """One entry a reference: a line that does not end one goes on in the next."""
    found: list[str] = []
    for line in lines:
        if found and not found[-1].endswith("."):
            found[-1] += f" {line}"
        else:
            found.append(line)
    return found


def _entries(lines: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        begin = re.match(r" {4}(\w+): (.*)", line)
        if begin:
            name, found[begin[1]] = begin[1], begin[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: markdown(text) for name, text in found.items()}


def markdown(text: str) -> str:
    """Text of a docstring, its double backticks single, a paragraph a line."""
    text = text.replace("``", "`").strip()
    return re.sub(r"(?<!\n)\n(?!\n|[-*] )", " ", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells hold no line breaks and no bars."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def page(title: str, *parts: str) -> str:
    """A page with its heading and the line that says where it comes from."""
    made = "*Made from the code by `make reference`; do not edit.*"
    return "\n\n".join((f"# {title}", made, *(part.strip() for part in parts if part.strip()))) + "\n"


def settings_table(kind: Any, *, leave_out: Iterable[str] = ()) -> str:
    """The fields of a dataclass with their defaults and what its docstring, or that of a base, says of them."""
    meanings: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each is not object:
            meanings |= parsed(each).entries
    rows = []
    for field in fields(kind):
        if field.name in leave_out:
            continue
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        shown = "" if default is MISSING else f"`{default!r}`"
        rows.append((f"`{field.name}`", shown, meanings.get(field.name, "")))
    return table(("setting", "default", "meaning"), rows) if rows else ""
