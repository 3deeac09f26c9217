"""``acclimate doctor``: what of this installation would keep a server from running, and what to do about it."""

import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
from rich.markup import escape

from models import ModelsError
from service.app import read_models, read_shipped
from service.commands.console import CommandError, out
from service.config import Settings, load_settings
from service.errors import ConfigurationError
from service.server import listen
from service.shards import check_shards, lay_out_shared, read_layout
from service.store import STORE_FILE, Database, StoreReader, stored_tenants

PYTHON = (3, 11)
SQLITE = (3, 37)
"""The first with STRICT tables."""
FREE_BYTES = 2**30
PACKAGES = ("acclimate", "torch", "fastapi", "uvicorn", "pydantic", "numpy")
EXTRAS = {
    "scikit-learn": "train on boosted trees",
    "river": "compare with River's models",
    "psycopg": "keep streams in PostgreSQL",
}


class Finding(NamedTuple):
    """What was looked at and found."""

    what: str
    state: Literal["ok", "note", "trouble"]
    said: str


def run(data_dir: Path | None, *, as_json: bool) -> None:
    """Look at Python, packages, settings, models, port, data directory and disk.

    Raises:
        CommandError: Something would keep a server from running.
    """
    findings = look(data_dir)
    if as_json:
        out.print_json(orjson.dumps([finding._asdict() for finding in findings]).decode())
    else:
        marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "trouble": "[red]trouble[/]"}
        for finding in findings:
            out.print(f"{marks[finding.state]:>9}  {finding.what}: {escape(finding.said)}", soft_wrap=True)
    troubles = [finding for finding in findings if finding.state == "trouble"]
    if troubles:
        raise CommandError(f"{troubles[0].what}: {troubles[0].said}")


def look(data_dir: Path | None) -> list[Finding]:
    """Everything, in the order in which a server would need it."""
    findings = [_python(), _sqlite(), *_packages()]
    try:
        settings = load_settings(data_dir=data_dir)
    except ConfigurationError as error:
        return [*findings, Finding("settings", "trouble", str(error))]
    findings.append(Finding("settings", "ok", f"{settings.host} port {settings.port}, data in {settings.data_dir}"))
    store = _directory if settings.store_url is None else _database
    checks: Sequence[Callable[[Settings], Finding]] = (_models, _port, store, _disk)
    return [*findings, *(check(settings) for check in checks)]


def _python() -> Finding:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= PYTHON
    return Finding("Python", "ok" if good else "trouble", said if good else f"{said}: 3.11 or newer is needed")


def _sqlite() -> Finding:
    said = sqlite3.sqlite_version
    good = sqlite3.sqlite_version_info >= SQLITE
    return Finding("SQLite", "ok" if good else "trouble", said if good else f"{said}: 3.37 or newer is needed")


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "trouble", "not installed: install acclimate again"))
    for name, use in EXTRAS.items():
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "note", f"not installed; only needed to {use}"))
    return findings


def _models(settings: Settings) -> Finding:
    try:
        models = read_models(settings.models) if settings.models else read_shipped()
    except (ConfigurationError, ModelsError) as error:
        return Finding("models", "trouble", str(error))
    return Finding("models", "ok", ", ".join(models) or "none")


def _port(settings: Settings) -> Finding:
    try:
        listen(settings).close()
    except ConfigurationError as error:
        return Finding("port", "note", f"{error} (fine if that is your server)")
    return Finding("port", "ok", f"{settings.port} on {settings.host} is free")


def _directory(settings: Settings) -> Finding:
    directory = settings.data_dir
    try:
        layout = read_layout(directory)
        check_shards(directory, layout)
        stores = [each for each in layout.directories if (each / STORE_FILE).is_file()]
        for each in stores:
            StoreReader(each).close()
    except ConfigurationError as error:
        return Finding("data directory", "trouble", str(error))
    if not stores:
        return Finding("data directory", "ok", f"{directory} has no store yet; serve makes it")
    size = sum((each / STORE_FILE).stat().st_size for each in stores)
    return Finding("data directory", "ok", f"{directory}: {len(stores)} shards, {size / 2**20:,.0f} MiB")


def _database(settings: Settings) -> Finding:
    """Looked at, and not made."""
    database = Database(settings.store_url or "")
    try:
        tenants = stored_tenants(database)
        lay_out_shared(settings.data_dir, 1)
    except ConfigurationError as error:
        return Finding("database", "trouble", str(error))
    return Finding("database", "ok", f"{database.place()}: answers, {len(tenants)} tenants beside the default one")


def _disk(settings: Settings) -> Finding:
    place = settings.data_dir.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 2**30:,.1f} GiB free at {place}"
    return Finding("disk", "ok", said) if free >= FREE_BYTES else Finding("disk", "note", f"{said}: make room")
