"""What operations on PostgreSQL have to know before they decide, asked for all of them at once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from service.store.base import Append, Configure, Create, Delete, Done, Pend, PutSnapshot, Refusal, Remember
from service.store.chain import new_record
from service.store.postgres_bulk import arrays, delete, unnest
from service.store.statements import columns_of


class Facts:
    """Read under the locks of the streams' rows; what nobody asks for is not read.

    Attributes:
        uploaded: Rows of uploads that streams have got to, by stream key and upload.
        answered: Keys of streams that keep an answer to the request already.
        known: Keys of streams that know an id of the rows to keep already.
        snapshots: Revisions and times of a stream's snapshots, by ascending revision.
    """

    def __init__(
        self, db: Any, operations: Sequence[Append | PutSnapshot | Configure | Pend | Remember | Delete]
    ) -> None:
        parts = [
            (each.record.key, each.upload.upload)
            for each in operations
            if isinstance(each, Append) and each.upload is not None
        ]
        onces = [
            (each.record.key, each.once.key, each.once.before)
            for each in operations
            if isinstance(each, Append) and each.once is not None
        ]
        rows = [
            (each.record.key, row.id, each.before) for each in operations if isinstance(each, Pend) for row in each.rows
        ]
        saved = [
            (each.record.key,)
            for each in operations
            if isinstance(each, PutSnapshot) or (isinstance(each, Configure) and each.snapshot is not None)
        ]
        asked = [
            _ask(
                db,
                "SELECT t.stream, t.upload, t.rows FROM uploads t JOIN",
                "stream, upload",
                "ON t.stream=w.stream AND t.upload=w.upload",
                parts,
            ),
            _ask(
                db,
                "SELECT DISTINCT w.stream FROM",
                "stream, id, before",
                "WHERE EXISTS (SELECT FROM pending t WHERE t.stream=w.stream AND t.id=w.id AND t.at>=w.before)"
                " OR EXISTS (SELECT FROM ids t WHERE t.stream=w.stream AND t.id=w.id)",
                rows,
            ),
            _ask(
                db,
                "SELECT t.stream, t.revision, t.at FROM snapshots t JOIN",
                "stream",
                "ON t.stream=w.stream ORDER BY t.stream, t.revision",
                saved,
            ),
            _ask(
                db,
                "SELECT t.stream FROM answers t JOIN",
                "stream, name, before",
                "ON t.stream=w.stream AND t.key=w.name AND t.at>=w.before",
                onces,
            ),
        ]
        uploads, known, snapshots, answered = ([] if cursor is None else cursor.fetchall() for cursor in asked)
        self.uploaded: Mapping[tuple[int, str], int] = {(key, upload): reached for key, upload, reached in uploads}
        self.answered: frozenset[int] = frozenset(key for (key,) in answered)
        self.known: frozenset[int] = frozenset(key for (key,) in known)
        self.snapshots: Mapping[int, list[tuple[int, float]]] = defaultdict(list)
        for key, revision, at in snapshots:
            self.snapshots[key].append((revision, at))


def _ask(db: Any, select: str, columns: str, rest: str, rows: Sequence[Sequence[Any]]) -> Any | None:
    return db.execute(f"{select} {unnest(columns)} {rest}", arrays(columns, rows)) if rows else None


def create(db: Any, operations: Mapping[int, Create]) -> dict[int, Done | Refusal]:
    """Make streams, unless they exist: answers by place.

    In the order of their names, so that two servers that make the same ones wait for each other and never both.
    """
    asked = []
    for place, operation in sorted(operations.items(), key=lambda item: item[1].stream):
        record = new_record(0, operation)
        cursor = db.execute(
            "INSERT INTO streams (stream, model, model_version, config, metadata, stream_version, rows_seen, chain,"
            " state, last_drift, created_at, updated_at, digest) VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)"
            " ON CONFLICT (stream) DO NOTHING RETURNING key",
            (*record[1:4], *columns_of(record)),
        )
        asked.append((place, record, cursor))
    found = [(place, record, cursor.fetchone()) for place, record, cursor in asked]
    return {place: Refusal.STALE if row is None else Done(record._replace(key=row[0])) for place, record, row in found}


def drop_surplus(db: Any, most: Sequence[tuple[Any, ...]]) -> Any | None:
    """Drop the oldest waiting rows of streams that have more than so many; what went, to be fetched."""
    surplus = (
        ", LATERAL (SELECT number FROM pending p WHERE p.stream=w.stream"
        " ORDER BY p.at DESC, p.number DESC OFFSET w.kept_max) x"
    )
    return delete(db, "pending", "stream, kept_max", "t.number=x.number", most, surplus)
