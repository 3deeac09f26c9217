"""Which shard of a data directory a stream belongs to, and where the shards lie.

A directory of one shard is a store itself. One of several has a file that states how many there are and a folder with a
store for each; the file is replaced in one piece, so that a change of the number happens whole or not at all.
"""

import os
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import orjson

from service.errors import ConfigurationError
from service.store import STORE_FILE, STORES, sync_directory

MANIFEST = "shards.json"
MOVED = "moved.json"
"""Says that the streams of a directory are in a database now, so that nobody learns on in the stores left behind."""


def shard_of(name: str, shards: int) -> int:
    """The shard that a stream, or whatever else has a name, belongs to; the same on every machine and for ever.

    Example:
        >>> [shard_of(f"s{number}", 3) for number in range(6)]
        [2, 2, 2, 0, 2, 2]
    """
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") % shards


class Layout(NamedTuple):
    """Where the stores of a data directory lie.

    Attributes:
        generation: How often the number of shards was set; 0 where the directory is a store itself.
        directories: One a shard.
    """

    generation: int
    directories: tuple[Path, ...]

    @classmethod
    def of(cls, data_dir: Path, generation: int, shards: int) -> "Layout":
        """The folders of a generation."""
        return cls(generation, tuple(data_dir / f"shards-{generation}" / str(number) for number in range(shards)))


def read_layout(data_dir: Path) -> Layout:
    """The layout of a data directory, whether or not there is a store in it yet.

    Raises:
        ConfigurationError: The file that states it cannot be read.
    """
    try:
        stated = orjson.loads((data_dir / MANIFEST).read_bytes())
        return Layout.of(data_dir, int(stated["generation"]), int(stated["shards"]))
    except (FileNotFoundError, NotADirectoryError):
        return Layout(0, (data_dir,))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{data_dir / MANIFEST} cannot be read ({error}): restore it from a backup") from error


def write_layout(data_dir: Path, layout: Layout) -> None:
    """State another layout, durably and in one piece."""
    path = data_dir / f"{MANIFEST}.new"
    path.write_bytes(orjson.dumps({"generation": layout.generation, "shards": len(layout.directories)}))
    sync_file(path)
    path.replace(data_dir / MANIFEST)
    sync_directory(data_dir)


def lay_out(data_dir: Path, workers: int) -> Layout:
    """The layout for this many workers, made in a directory that has no store yet.

    Raises:
        ConfigurationError: The directory has another number of shards, or lacks one.
    """
    layout = read_layout(data_dir)
    shards = len(layout.directories)
    place = moved_to(data_dir)
    if place is not None:
        raise ConfigurationError(
            f"the streams of {data_dir} were moved to {place}: serve them with --store, or remove {data_dir / MOVED} "
            "to go back to what they were then"
        )
    if shards == workers:
        check_shards(data_dir, layout)
        return layout
    if layout.generation or (data_dir / STORE_FILE).exists():
        raise ConfigurationError(
            f"the data directory {data_dir} has {shards} shard{'s' if shards > 1 else ''}: start it with "
            f"--workers {shards}, or first run acclimate reshard --data-dir {data_dir} --shards {workers}"
        )
    layout = Layout.of(data_dir, 1, workers)
    try:
        for directory in layout.directories:
            STORES["sqlite"](directory).close()  # from here on, a shard without a store has lost it
        write_layout(data_dir, layout)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to the data directory {data_dir} ({error.strerror}): choose another with --data-dir"
        ) from error
    return layout


def lay_out_shared(data_dir: Path, workers: int) -> Layout:
    """The layout for workers whose streams are in a database: the directory, which has keys, is that of all of them.

    Raises:
        ConfigurationError: The directory has streams of its own, which nobody would serve.
    """
    layout = read_layout(data_dir)
    if moved_to(data_dir) is None and any((each / STORE_FILE).exists() for each in layout.directories):
        raise ConfigurationError(
            f"the data directory {data_dir} has streams of its own: move them to the database first "
            f"(acclimate migrate-store --data-dir {data_dir} --to URL), or choose another with --data-dir"
        )
    return Layout(layout.generation, (data_dir,) * workers)


def moved_to(data_dir: Path) -> str | None:
    """Where the streams of a directory were moved to; ``None``: they were not.

    Raises:
        ConfigurationError: The file that says so cannot be read.
    """
    try:
        return str(orjson.loads((data_dir / MOVED).read_bytes())["to"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{data_dir / MOVED} cannot be read ({error}): restore it from a backup") from error


def mark_moved(data_dir: Path, place: str) -> None:
    """State, durably and in one piece, where the streams of a directory were moved to."""
    path = data_dir / f"{MOVED}.new"
    path.write_bytes(orjson.dumps({"to": place}))
    sync_file(path)
    path.replace(data_dir / MOVED)
    sync_directory(data_dir)


def check_shards(data_dir: Path, layout: Layout) -> None:
    """Refuse a directory that lacks a shard: to make it anew would forget its streams.

    Raises:
        ConfigurationError: Names the first one.
    """
    if layout.generation:
        for number, directory in enumerate(layout.directories):
            if not (directory / STORE_FILE).is_file():
                raise ConfigurationError(
                    f"shard {number} of the data directory {data_dir} is missing: restore {directory} from a backup"
                )


def sync_file(path: Path) -> None:
    """Make a file's contents durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
