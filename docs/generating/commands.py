"""Every command with its options, from the declarations of the command line."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from docs.generating.text import page, table
from service.cli import app
from service.commands.examples import EXAMPLES
from service.config import PREFIX

KINDS = {str: "TEXT", int: "N", float: "N", Path: "FILE"}
INTRODUCTION = """\
`acclimate COMMAND --help` prints the same. Exit codes: 0 done, 1 failed, with one line on standard error that says
what and what to do, 2 wrong usage. Results go to standard output, progress and errors to standard error.

`acclimate --install-completion` sets up completion of commands and options for bash, zsh, fish or PowerShell;
`--show-completion` prints what it would set up. `--json` is there wherever a table is printed: a flag that prints JSON
instead, or a file for the figures of `train`, `evaluate` and `replay`.
"""


def commands() -> str:
    """The page."""
    group: Any = typer.main.get_command(app)
    return page("Command line", INTRODUCTION, _options(group), *_below(group, "acclimate"))


def _below(group: Any, path: str) -> list[str]:
    parts: list[str] = []
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if hasattr(command, "commands"):
            parts += _below(command, words)
        else:
            parts.append(_command(words, command))
    return parts


def _command(words: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument" and not each.hidden]
    usage = " ".join([words, *(each.metavar or each.human_readable_name.upper() for each in arguments), "[OPTIONS]"])
    parts = [f"## {words}", f"```text\n{usage}\n```", _plain(command.help or "")]
    parts += [f"`{each.metavar or each.name.upper()}`: {_plain(each.help or '')}" for each in arguments]
    parts.append(_options(command))
    epilog = _plain(command.epilog or "").split("\n\n")
    if any(PREFIX in paragraph for paragraph in epilog):
        parts.append("All others: [settings](settings.md).")
    stated = EXAMPLES[words.removeprefix("acclimate ")]
    parts.append("```sh\n" + "\n".join(stated) + "\n```")
    return "\n\n".join(part for part in parts if part)


def _options(command: Any) -> str:
    rows = []
    for each in command.params:
        if each.param_type_name != "option" or each.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
        rows.append((names, _value(each), _default(each), _plain(each.help or "")))
    return table(("option", "value", "default", "meaning"), rows) if rows else ""


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{choice.value}`" for choice in kind)
    return f"`{option.metavar or KINDS.get(kind, 'VALUE')}`"


def _default(option: Any) -> str:
    if option.required:
        return "needed"
    value = option.default
    if value is None or isinstance(value, (bool, list, tuple)) or value == "" or "default:" in (option.help or ""):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _plain(text: str) -> str:
    """Without the terminal's markup."""
    return re.sub(r"\[/?[a-z ]*\]", "", text.replace("\b", "")).replace("\f", "").strip()
