"""What the examples share: running the command `acclimate` as a shell would, and writing tables as CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.cli import app


def acclimate(*words: object) -> None:
    """Print a command line and run it, in this process."""
    text = [str(word) for word in words]
    print("\n$ acclimate", *text)
    app(text, standalone_mode=False)


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A table as CSV."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(header)
        writer.writerows(rows)
    return file
