"""``acclimate backup`` and ``restore``: a data directory as it is at one moment, checked, and back again."""

import hashlib
import os
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich.progress import Progress, TaskID

from service.commands.console import CommandError, out, progress_bar
from service.commands.fsck import look_through, stores_in
from service.keys import FILE as KEYS_FILE
from service.shards import Layout, check_shards, read_layout, write_layout
from service.store import STORE_FILE, copy_store, sync_directory

MANIFEST = "backup.json"
FORMAT_VERSION = 1


def backup(data_dir: Path, to: Path) -> None:
    """Copy a data directory, which may be in use, and look the copy through.

    Each shard is copied as of one moment, all that was acknowledged before it included.

    Raises:
        CommandError: The folder is not empty, or something is damaged.
        ConfigurationError: There is no store.
    """
    layout = read_layout(data_dir)
    check_shards(data_dir, layout)
    if not any((directory / STORE_FILE).is_file() for directory in layout.directories):
        raise CommandError(f"there is no store in {data_dir}: state the server's directory with --data-dir")
    _make_empty(to)
    with progress_bar("pages") as bar:
        for source in stores_in(layout):
            target = to / source.relative_to(data_dir)
            target.mkdir(parents=True, exist_ok=True)
            copy_store(source, target, partial(_shown, bar, bar.add_task("copy")))
    if layout.generation:
        write_layout(to, Layout.of(to, layout.generation, len(layout.directories)))
    if (data_dir / KEYS_FILE).is_file():
        shutil.copyfile(data_dir / KEYS_FILE, to / KEYS_FILE)
    found = look_through(to)
    if found.damages:
        raise CommandError(f"{data_dir} is damaged: acclimate fsck names where; the copy in {to} is as it is")
    files = {str(file.relative_to(to)): _digest(file) for file in sorted(to.rglob("*")) if file.is_file()}
    manifest = {
        "format_version": FORMAT_VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "streams": found.streams,
        "entries": found.entries,
        "files": files,
    }
    (to / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    for folder in {to, *(file.parent for file in to.rglob("*"))}:
        sync_directory(folder)
    out.print(f"{to}: {found.streams:,} streams and {found.entries:,} log entries, checked", soft_wrap=True)


def restore(source: Path, data_dir: Path) -> None:
    """Make a data directory from a backup, which is checked before and after; a server may be started then.

    Raises:
        CommandError: The folder holds no backup, or one that is not what was written, or the directory has a store.
    """
    manifest = _manifest(source)
    with progress_bar("files") as bar:
        files = bar.track(manifest["files"].items(), description="compare")
        broken = [name for name, digest in files if _digest_of(source / name) != digest]
    if broken:
        raise CommandError(f"{source / broken[0]} is not what was written: take another backup")
    _make_empty(data_dir)
    with progress_bar("files") as bar:
        for name in bar.track(manifest["files"], description="copy"):
            target = data_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target)
            with target.open("rb+") as file:
                os.fsync(file.fileno())
    for folder in {data_dir, *(file.parent for file in data_dir.rglob("*"))}:
        sync_directory(folder)
    found = look_through(data_dir)
    if found.damages or found.streams != manifest["streams"]:
        raise CommandError(f"{data_dir} does not hold what {source} does: take another disk, or another backup")
    out.print(
        f"{data_dir}: {found.streams:,} streams as of {manifest['made_at']}, checked: serve with --data-dir {data_dir}",
        soft_wrap=True,
    )


def _shown(bar: Progress, task: TaskID, left: int, of: int) -> None:
    bar.update(task, completed=of - left, total=of)


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    if occupied:
        raise CommandError(f"{folder} is not empty: choose a new folder, nothing is overwritten")


def _manifest(source: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = orjson.loads((source / MANIFEST).read_bytes())
        version = int(manifest["format_version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CommandError(
            f"{source} is no backup that was finished: it has no {MANIFEST}; acclimate backup makes one"
        ) from None
    if version != FORMAT_VERSION:
        raise CommandError(f"{source} has format {version}, this acclimate reads {FORMAT_VERSION}: use a newer one")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest["files"]):
        raise CommandError(f"{source / MANIFEST} names files outside of the backup: take another backup")
    return manifest


def _digest_of(file: Path) -> str | None:
    return _digest(file) if file.is_file() else None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
