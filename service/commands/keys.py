"""``acclimate keys``: create, list, revoke API keys, draw a first one; a running server hears of it within a second."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from service.commands.console import NARROW, CommandError, out
from service.keys import FILE, Key, Scope, create_key, draw_bootstrap_key, read_keys, revoke_key
from service.schemas import ID_RULE, is_id

TENANT_CHARS_MAX = 64


def create(
    data_dir: Path,
    tenant: str,
    scope: Scope,
    *,
    requests_per_second: float,
    bytes_per_second: float,
    note: str,
    as_json: bool,
) -> None:
    """Make a key and show it, this once.

    Raises:
        CommandError: The tenant's name is none.
        ConfigurationError: The data directory cannot be written.
    """
    if not is_id(tenant) or len(tenant) > TENANT_CHARS_MAX or tenant.startswith("."):
        raise CommandError(f"--tenant {tenant!r} is no name: {ID_RULE}, {TENANT_CHARS_MAX} at most, no leading dot")
    key, whole = create_key(
        data_dir,
        tenant,
        scope,
        requests_per_second=requests_per_second,
        bytes_per_second=bytes_per_second,
        note=note,
    )
    if as_json:
        out.print_json(orjson.dumps({**_shown(key), "key": whole}).decode())
        return
    out.print(whole, soft_wrap=True, markup=False)
    out.print(f"key {key.id} of tenant {tenant}, scope {scope}: shown this once, kept hashed in {data_dir / FILE}")
    out.print(f"send it as: Authorization: Bearer {whole[:8]}…", markup=False)


def bootstrap(file: Path) -> None:
    """Draw a key for ``ACCLIMATE_BOOTSTRAP_KEY_FILE``, unless there is one. Raises ConfigurationError."""
    drawn = draw_bootstrap_key(file)
    out.print(
        f"{'drew a bootstrap key:' if drawn else 'there is a bootstrap key:'} cat {file}", soft_wrap=True, markup=False
    )
    out.print(f"serve with it: ACCLIMATE_BOOTSTRAP_KEY_FILE={file}", soft_wrap=True, markup=False)


def show(data_dir: Path, *, as_json: bool) -> None:
    """All keys, revoked ones too. Raises ConfigurationError."""
    keys = read_keys(data_dir / FILE)
    if as_json:
        out.print_json(orjson.dumps([_shown(key) for key in keys]).decode())
        return
    if not keys:
        out.print(f"there are no keys in {data_dir}: on loopback everything is open, as the tenant default")
        return
    grid = Table(**NARROW)
    for name in ("id", "tenant", "scope", "created", "requests/s", "bytes/s", "state", "note"):
        grid.add_column(name)
    for key in keys:
        shown = _shown(key)
        rates = (f"{rate:g}" if rate else "-" for rate in (key.requests_per_second, key.bytes_per_second))
        grid.add_row(key.id, key.tenant, key.scope, shown["created_at"], *rates, shown["state"], key.note)
    out.print(grid)


def revoke(data_dir: Path, name: str) -> None:
    """Make a key good for nothing.

    Raises:
        CommandError: There is none of that id.
        ConfigurationError: The data directory cannot be written.
    """
    key = revoke_key(data_dir, name)
    if key is None:
        raise CommandError(f"there is no key {name!r} in {data_dir}: acclimate keys list shows them")
    out.print(f"key {key.id} of tenant {key.tenant} is revoked; a running server refuses it within a second")


def _shown(key: Key) -> dict[str, Any]:
    """A key without its digest."""
    stated = {name: value for name, value in key._asdict().items() if name not in {"digest", "revoked_at"}}
    at = datetime.fromtimestamp(key.created_at, UTC).isoformat(timespec="seconds")
    return {**stated, "created_at": at, "state": "good" if key.revoked_at is None else "revoked"}
