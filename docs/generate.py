"""``make reference``: the pages of docs/reference, from the code; with ``--check`` it compares alone."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from docs.generating.commands import commands
from docs.generating.http import http
from docs.generating.parts import detectors, errors, learners, metrics, settings, tasks

FOLDER = Path(__file__).parent / "reference"
PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "command-line.md": commands,
        "detectors.md": detectors,
        "errors.md": errors,
        "http.md": http,
        "learners.md": learners,
        "metrics.md": metrics,
        "settings.md": settings,
        "tasks.md": tasks,
    }
)
"""What makes each page."""


def stale() -> dict[str, str]:
    """The pages whose files are not what the code says, by name."""
    made = {name: make() for name, make in PAGES.items()}
    return {name: text for name, text in made.items() if not _is(FOLDER / name, text)}


def _is(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text("utf-8") == text


def main() -> int:
    """Write what has changed; with ``--check`` name it."""
    found = stale()
    for name, text in found.items():
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(text, "utf-8")
        print(f"docs/reference/{name}")
    return int("--check" in sys.argv and bool(found))


if __name__ == "__main__":
    sys.exit(main())
