"""``acclimate reshard``: another number of shards, so that another number of workers can serve; offline."""

import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from service.commands.console import CommandError, out, progress_bar
from service.keys import DEFAULT_TENANT
from service.shards import Layout, check_shards, read_layout, shard_of, write_layout
from service.store import STORE_FILE, moved_streams
from service.tenants import FOLDER, folder_of, tenants_in


def run(data_dir: Path, shards: int) -> None:
    """Divide a data directory's streams among another number of shards.

    They are copied beside the old ones and checked; then one file is replaced, which is the moment of the change; then
    the old ones are removed. A run that is cut short leaves everything as it was, and the next one clears up after it.

    Raises:
        CommandError: There is no store.
        ConfigurationError: A server has the directory, a shard is missing, or it cannot be read.
        DamagedError: A stream is damaged; nothing has changed.
    """
    layout = read_layout(data_dir)
    if not any((directory / STORE_FILE).is_file() for directory in layout.directories):
        raise CommandError(f"there is no store in {data_dir}: state the server's directory with --data-dir")
    check_shards(data_dir, layout)
    if len(layout.directories) == shards:
        out.print(f"{data_dir} has {shards} shard{'s' if shards > 1 else ''} already")
        return
    clear_up(data_dir, layout)
    new = Layout.of(data_dir, layout.generation + 1, shards)
    tenants = sorted({tenant for directory in layout.directories for tenant in tenants_in(directory)})
    with progress_bar("streams") as bar, ExitStack() as stack:  # nobody can write to the old stores until they are gone
        total = 0
        for tenant in (DEFAULT_TENANT, *tenants):
            task = bar.add_task("reshard")
            total += stack.enter_context(
                moved_streams(
                    [folder for each in layout.directories if (folder := folder_of(each, tenant)).is_dir()],
                    [folder_of(each, tenant) for each in new.directories],
                    lambda name: shard_of(name, shards),
                    partial(_shown, bar, task),
                )
            )
        write_layout(data_dir, new)
        clear_up(data_dir, new)
    out.print(f"{total:,} streams in {shards} shard{'s' if shards > 1 else ''}: serve with --workers {shards}")


def _shown(bar: Progress, task: TaskID, done: int, of: int) -> None:
    bar.update(task, completed=done, total=of)


def clear_up(data_dir: Path, layout: Layout) -> None:
    """Remove stores that are not part of the layout: left over from before a change, or from one that was cut short."""
    for folder in data_dir.glob("shards-*"):
        if folder.name != f"shards-{layout.generation}":
            shutil.rmtree(folder)
    if layout.generation:
        for name in (STORE_FILE, f"{STORE_FILE}-wal", f"{STORE_FILE}-shm"):
            (data_dir / name).unlink(missing_ok=True)
        shutil.rmtree(data_dir / FOLDER, ignore_errors=True)
