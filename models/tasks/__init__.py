"""Where tasks come from: tables of labelled rows, and built-in families."""

from models.tasks.labels import label_slots
from models.tasks.table import Mask, Table, join_tables, read_stream_names, rows_mask, streams_mask
from models.tasks.tables import column_names, read_table, read_table_for

__all__ = [
    "Mask",
    "Table",
    "column_names",
    "join_tables",
    "label_slots",
    "read_stream_names",
    "read_table",
    "read_table_for",
    "rows_mask",
    "streams_mask",
]
