"""``acclimate migrate-store``: the streams of a data directory into a database, offline."""

from pathlib import Path

from rich.progress import Progress, TaskID

from service.commands.console import CommandError, out, progress_bar
from service.commands.database import stated_database
from service.keys import DEFAULT_TENANT
from service.shards import check_shards, mark_moved, read_layout
from service.store import STORE_FILE, moved_stores
from service.tenants import folder_of, tenants_in


def run(data_dir: Path, to: str | None) -> None:
    """Move all streams, models, events and webhooks of all tenants; keys stay in the directory.

    Each store is looked through, copied, and compared row by row, in one transaction of the database: a run that is cut
    short has changed nothing. The old stores stay as they are, and are not served any more.

    Raises:
        CommandError: There is no store, or no database is stated.
        ConfigurationError: A server has the directory, a shard is missing, or the database does not take it.
        DamagedError: A stream is damaged, or did not arrive as it was; nothing has changed.
    """
    database = stated_database(to)
    if database is None:
        raise CommandError("state an empty database with --to postgresql://USER@HOST/DATABASE")
    layout = read_layout(data_dir)
    if not any((directory / STORE_FILE).is_file() for directory in layout.directories):
        raise CommandError(f"there is no store in {data_dir}: state the server's directory with --data-dir")
    check_shards(data_dir, layout)
    tenants = sorted({tenant for directory in layout.directories for tenant in tenants_in(directory)})
    sources = {
        tenant: [folder for each in layout.directories if (folder := folder_of(each, tenant)).is_dir()]
        for tenant in (DEFAULT_TENANT, *tenants)
    }
    with progress_bar() as bar, moved_stores(sources, database, _Shown(bar)) as moved:
        # Before it counts, and for good: nobody may learn on in the old ones. Where the end is cut off, a further run
        # tells whether the database has them, or moves them.
        mark_moved(data_dir, database.place())
    rows = ", ".join(f"{count:,} {name}" for name, count in moved.rows.items() if count)
    out.print(
        f"{moved.tenants} tenant{'s' if moved.tenants > 1 else ''} in {database.place()}, compared: {rows}",
        soft_wrap=True,
    )
    out.print(
        f"serve with --store; keys stay in {data_dir}, and so do the old stores until you remove them", soft_wrap=True
    )


class _Shown:
    """One bar for each thing that is done, the latest below."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what)
        self._bar.update(self._tasks[what], completed=done, total=of)
