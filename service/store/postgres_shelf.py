"""What a store in PostgreSQL keeps beside streams, and how deleted streams are cleared away; inside a transaction."""

from typing import Any

import orjson

from service.store.base import ModelRecord, Webhook
from service.store.chain import bundle_digest
from service.store.statements import MANY

_OWNED = ("entries", "ids", "events", "pending", "snapshots", "watches", "uploads", "answers")


def put_model(db: Any, name: str, bundle: bytes, *, activate: bool | None, version: int | None) -> ModelRecord:
    """Register a bundle, or find the version that its bytes have already.

    Servers that start together register the same models: the lock lets one number them, and the others find them.
    """
    digest = bundle_digest(bundle)
    db.execute("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE")
    known = db.execute("SELECT version, digest, active FROM models WHERE name=%s", (name,)).fetchall()
    found = next((number for number, kept, _ in known if kept == digest), None)
    if found is None:
        found = 1 + max((number for number, _, _ in known), default=0) if version is None else version
        db.execute(
            "INSERT INTO models (name, version, digest, active, bundle) VALUES (%s,%s,%s,false,%b)",
            (name, found, digest, bundle),
        )
    if activate or (activate is None and not any(active for _, _, active in known)):
        activate_model(db, name, found)
    row = db.execute("SELECT active FROM models WHERE name=%s AND version=%s", (name, found)).fetchone()
    return ModelRecord(name, found, digest, row[0])


def activate_model(db: Any, name: str, version: int) -> bool:
    """Make a version the active one, if it is there; of those who do so at once the last one counts."""
    db.execute("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE")
    if db.execute("SELECT FROM models WHERE name=%s AND version=%s", (name, version)).fetchone() is None:
        return False
    db.execute("UPDATE models SET active=(version=%s) WHERE name=%s", (version, name))
    return True


def delete_model(db: Any, name: str) -> bool:
    """Remove a model that no stream is bound to; no stream is made meanwhile."""
    db.execute("LOCK TABLE streams IN SHARE MODE")
    if db.execute("SELECT FROM streams WHERE model=%s LIMIT 1", (name,)).fetchone() is not None:
        return False
    db.execute("DELETE FROM models WHERE name=%s", (name,))
    return True


def put_webhook(db: Any, webhook: Webhook, *, known: bool) -> None:
    """Keep one, in place of what was there under its id; if it is ``known``, not where nothing is there."""
    name, url, kinds, *rest = webhook
    if known and db.execute("SELECT FROM webhooks WHERE id=%s FOR UPDATE", (name,)).fetchone() is None:
        return
    db.execute(
        "INSERT INTO webhooks (id, url, kinds, secret, created_at, cursor, gone) VALUES (%s,%s,%s,%s,%s,%s,%s)"
        " ON CONFLICT (id) DO UPDATE SET url=excluded.url, kinds=excluded.kinds, secret=excluded.secret,"
        " created_at=excluded.created_at, cursor=excluded.cursor, gone=excluded.gone",
        (name, url, orjson.dumps(kinds).decode(), *rest),
    )


def put_uploaded(db: Any, upload: str, rows: int, at: float, before: float) -> None:
    """Keep how far an upload to many streams has got, and forget those that ended long ago."""
    db.execute(
        "INSERT INTO uploads (stream, upload, rows, at) VALUES (%s,%s,%s,%s)"
        " ON CONFLICT (stream, upload) DO UPDATE SET rows=excluded.rows, at=excluded.at",
        (MANY, upload, rows, at),
    )
    db.execute("DELETE FROM uploads WHERE stream=%s AND at<%s", (MANY, before))


def clear(db: Any, budget_rows: int) -> bool:
    """Clear away rows of deleted streams; whether more are left. Servers that do so at once take different streams."""
    keys = db.execute("SELECT stream FROM graves LIMIT %s FOR UPDATE SKIP LOCKED", (budget_rows,)).fetchall()
    left = budget_rows
    for (key,) in keys:
        for table in _OWNED:
            rows = f"SELECT ctid FROM {table} WHERE stream=%s LIMIT %s"
            gone = db.execute(f"DELETE FROM {table} WHERE ctid=ANY(ARRAY({rows})) RETURNING 1", (key, left)).fetchall()
            left -= len(gone)
            if left <= 0:
                return True
        db.execute("DELETE FROM graves WHERE stream=%s", (key,))
    return False
