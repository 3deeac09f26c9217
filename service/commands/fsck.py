"""``acclimate fsck``: whether all that is stored is what was written, beside a running server or without one."""

from functools import partial
from pathlib import Path

import orjson
from rich.progress import Progress, TaskID

from models import BundleError, read_bundle
from service.commands.console import CommandError, out, progress_bar
from service.commands.database import stated_database
from service.keys import DEFAULT_TENANT
from service.shards import Layout, check_shards, read_layout
from service.store import (
    Checked,
    Damage,
    Database,
    DatabaseReader,
    Reader,
    StoreReader,
    check_database,
    check_store,
    stored_tenants,
)
from service.tenants import folder_of, tenants_in


def run(data_dir: Path, *, as_json: bool, store: str | None = None) -> None:
    """Look through all stores of a data directory, or of a database, and name what is damaged.

    Raises:
        CommandError: Something is damaged.
        ConfigurationError: There is no store.
    """
    database = stated_database(store)
    found = look_through(data_dir) if database is None else look_through_database(database)
    place = data_dir if database is None else database.place()
    if as_json:
        damages = [damage._asdict() for damage in found.damages]
        out.print_json(orjson.dumps(found._asdict() | {"damages": damages}).decode())
    else:
        for damage in found.damages:
            out.print(_line(damage), soft_wrap=True, markup=False, highlight=False)
        out.print(
            f"{place}: {found.streams:,} streams, {found.entries:,} log entries, {found.models:,} models",
            soft_wrap=True,
        )
    if found.damages:
        raise CommandError(
            f"{len(found.damages)} damages: what is named is not served; restore a backup, or delete those streams"
        )


def look_through(data_dir: Path) -> Checked:
    """Check every shard of a data directory. Raises ConfigurationError where there is no store."""
    layout = read_layout(data_dir)
    check_shards(data_dir, layout)
    total = Checked(0, 0, 0, [])
    with progress_bar("streams") as bar:
        task = bar.add_task("check", total=None)
        for directory in stores_in(layout):
            total = _added(total, check_store(directory, partial(_shown, bar, task, total.streams)))
    if not total.damages:
        total.damages.extend(_unreadable(StoreReader(layout.directories[0])))
    return total


def look_through_database(database: Database) -> Checked:
    """Check the stores of all tenants of a database. Raises ConfigurationError where there is none."""
    total = Checked(0, 0, 0, [])
    with progress_bar("streams") as bar:
        task = bar.add_task("check", total=None)
        for tenant in (database.tenant, *stored_tenants(database)):
            place = database.of_tenant(tenant)
            total = _added(total, check_database(place, partial(_shown, bar, task, total.streams)))
    if not total.damages:
        total.damages.extend(_unreadable(DatabaseReader(database)))
    return total


def _added(total: Checked, found: Checked) -> Checked:
    return Checked(
        total.streams + found.streams,
        total.entries + found.entries,
        max(total.models, found.models),
        [*total.damages, *found.damages],
    )


def stores_in(layout: Layout) -> list[Path]:
    """The folders of all stores: each shard's, and in it each tenant's."""
    return [
        folder_of(directory, tenant)
        for directory in layout.directories
        for tenant in (DEFAULT_TENANT, *tenants_in(directory))
    ]


def _shown(bar: Progress, task: TaskID, before: int, done: int) -> None:
    bar.update(task, completed=before + done)


def _unreadable(reader: Reader) -> list[Damage]:
    """Bundles that are whole, and that this version cannot read; closes the reader."""
    try:
        damages = []
        for record in reader.models():
            name = f"model {record.name}, version {record.version}"
            try:
                read_bundle(reader.bundle(record.name, record.version), name)
            except BundleError as error:
                damages.append(Damage(None, None, str(error)))
        return damages
    finally:
        reader.close()


def _line(damage: Damage) -> str:
    whose = "the store" if damage.stream is None else f"stream {damage.stream}"
    at = "" if damage.revision is None else f", revision {damage.revision}"
    return f"{whose}{at}: {damage.reason}"
