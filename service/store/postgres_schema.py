"""The tables of a store in PostgreSQL: their layout, its number, and how an older one is brought up to date."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from service.errors import ConfigurationError
from service.store.beside import EMPTY
from service.store.driver import Database, driver, first_line

LAYOUT = 1
"""Number of this layout; a store with a higher one is refused. It has nothing to do with that of SQLite files."""
MARK = "acclimate: streams of tenant "
"""Comment on a schema that is a store, with the tenant's name behind it."""
LOCK = 0x41636C69
"""Advisory lock of those who make tables or bring them up to date (``Acli``)."""

# Text in byte order: pages of streams must not depend on the database's language. Nothing refers to anything by a
# foreign key: rows of a deleted stream are cleared away later, and every writer holds the lock on its stream's row.
# Large values that cannot be pressed any further (states, bundles) are stored as they are.
TABLES = f"""
CREATE TABLE streams (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream text COLLATE "C" NOT NULL UNIQUE,
  model text COLLATE "C" NOT NULL,
  model_version bigint NOT NULL,
  config text NOT NULL,
  metadata text NOT NULL,
  stream_version bigint NOT NULL,
  rows_seen bigint NOT NULL,
  chain bytea NOT NULL,
  state text NOT NULL,
  last_drift text NOT NULL,
  created_at double precision NOT NULL,
  updated_at double precision NOT NULL,
  digest bytea NOT NULL,
  beside bytea NOT NULL DEFAULT '\\x{EMPTY.hex()}'
) WITH (fillfactor = 80);
CREATE INDEX streams_model ON streams (model, model_version, stream);
CREATE TABLE entries (
  stream bigint NOT NULL,
  revision bigint NOT NULL,
  kind text NOT NULL,
  at double precision NOT NULL,
  first_row bigint NOT NULL,
  rows bigint NOT NULL,
  payload bytea NOT NULL,
  previous bytea NOT NULL,
  chain bytea NOT NULL,
  PRIMARY KEY (stream, revision)
);
CREATE TABLE snapshots (
  stream bigint NOT NULL,
  revision bigint NOT NULL,
  at double precision NOT NULL,
  chain bytea NOT NULL,
  status text NOT NULL,
  digest bytea NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (stream, revision)
);
ALTER TABLE snapshots ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE ids (
  stream bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  row bigint NOT NULL,
  PRIMARY KEY (stream, id)
);
CREATE INDEX ids_row ON ids (stream, row);
CREATE TABLE pending (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  at double precision NOT NULL,
  payload bytea NOT NULL,
  digest bytea NOT NULL,
  UNIQUE (stream, id)
);
CREATE INDEX pending_at ON pending (stream, at, number);
CREATE TABLE watches (
  stream bigint PRIMARY KEY,
  revision bigint NOT NULL,
  data bytea NOT NULL,
  digest bytea NOT NULL
);
CREATE TABLE events (
  id bigint PRIMARY KEY,
  stream bigint NOT NULL,
  revision bigint NOT NULL,
  at double precision NOT NULL,
  kind text NOT NULL,
  detector text,
  statistic double precision,
  threshold double precision,
  change_row bigint,
  action text,
  rows_used bigint,
  feature text,
  shift double precision
);
CREATE INDEX events_stream ON events (stream, id);
CREATE TABLE uploads (
  stream bigint NOT NULL,
  upload text COLLATE "C" NOT NULL,
  rows bigint NOT NULL,
  at double precision NOT NULL,
  PRIMARY KEY (stream, upload)
);
CREATE TABLE answers (
  stream bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  at double precision NOT NULL,
  digest bytea NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (stream, key)
);
CREATE INDEX answers_at ON answers (stream, at);
CREATE TABLE models (
  name text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  digest text NOT NULL,
  active boolean NOT NULL,
  bundle bytea NOT NULL,
  PRIMARY KEY (name, version)
);
ALTER TABLE models ALTER COLUMN bundle SET STORAGE EXTERNAL;
CREATE TABLE webhooks (
  id text COLLATE "C" PRIMARY KEY,
  url text NOT NULL,
  kinds text NOT NULL,
  secret bytea NOT NULL,
  created_at double precision NOT NULL,
  cursor bigint NOT NULL,
  gone boolean NOT NULL
);
CREATE TABLE graves (stream bigint PRIMARY KEY);
CREATE TABLE numbers (name text PRIMARY KEY, last bigint NOT NULL);
INSERT INTO numbers (name, last) VALUES ('events', 0);
CREATE TABLE writers (writer uuid PRIMARY KEY, tick bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())
  WITH (fillfactor = 50);
CREATE TABLE layout (version bigint NOT NULL);
INSERT INTO layout (version) VALUES (1);
"""
UPGRADES: Mapping[int, str] = MappingProxyType({})
"""What makes the next layout of each one; a new store begins with ``TABLES``, layout 1."""


def prepare(connection: Any, database: Database, upgrades: Mapping[int, str] = UPGRADES, layout: int = LAYOUT) -> None:
    """Make a store's tables, or bring them up to date, in one transaction; servers that start together take turns.

    Args:
        connection: Whose search path is the store's schema; every statement commits by itself.
        database: The store.
        upgrades: What makes the next layout of each one.
        layout: The one to get to.

    Raises:
        ConfigurationError: There is something else under that name, or a newer layout, or it may not be made.
    """
    sql, schema = driver().sql, database.schema
    try:
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")  # an upgrade takes as long as it takes
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            _check_encoding(connection, database)
            version = layout_of(connection, schema)
            if version is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                mark = sql.Literal(MARK + database.tenant)
                connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), mark))
                connection.execute(TABLES)
                version = 1
            if version > layout:
                raise ConfigurationError(
                    f"the store {schema} in {database.place()} has layout {version}, this acclimate reads layouts up "
                    f"to {layout}: use the version that wrote it, or a newer one"
                )
            for before in range(version, layout):
                connection.execute(upgrades[before])
            if version < layout:
                connection.execute("UPDATE layout SET version=%s", (layout,))
    except driver().Error as error:
        raise ConfigurationError(
            f"cannot make the store {schema} in {database.place()} ({first_line(error)}): "
            "the user needs CREATE on the database"
        ) from error


def layout_of(connection: Any, schema: str) -> int | None:
    """The layout of the store in a schema; ``None`` where there is no such schema.

    Raises:
        ConfigurationError: The schema is something else.
    """
    found = connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname=%s", (schema,)
    ).fetchone()
    if found is None:
        return None
    if not (found[0] or "").startswith(MARK):
        raise ConfigurationError(f"the schema {schema} is not a store of acclimate: use another database")
    return int(connection.execute("SELECT version FROM layout").fetchone()[0])


def tenants_of(connection: Any, schema: str) -> list[str]:
    """Tenants that have a store in the database, by name; ``schema`` is that of the default one."""
    rows = connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace"
        " WHERE starts_with(obj_description(oid, 'pg_namespace'), %s) AND (nspname=%s OR starts_with(nspname, %s))",
        (MARK, schema, f"{schema}_"),
    ).fetchall()
    return sorted(comment.removeprefix(MARK) for (comment,) in rows)


def _check_encoding(connection: Any, database: Database) -> None:
    (encoding,) = connection.execute("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database {database.place()} has encoding {encoding}: make one with CREATE DATABASE … ENCODING 'UTF8'"
        )
