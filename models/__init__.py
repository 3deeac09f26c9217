"""The learning core of acclimate: meta-trained initializations, adapted per stream by one pure function.

Nothing here knows HTTP, clocks, threads of others or where files lie.
"""

from models.bundle import Model, read_bundle, write_bundle
from models.engine import Decision, Engine, Feedback, Outcome, Prediction, Status, StreamConfig, Tick
from models.errors import BundleError, DataError, InputError, ModelsError, SnapshotError, TrainingError
from models.evaluation import Evaluation, evaluate
from models.prequential import Report, events, prequential
from models.scores import Alarm, Run, Scores, default_window, rolling_score, score_rows, summarise, summarise_streams
from models.tasks import (
    Mask,
    Table,
    column_names,
    read_stream_names,
    read_table,
    read_table_for,
    rows_mask,
    streams_mask,
)
from models.trainer import TrainingReport, TrainProgress, TrainSettings, train_table, train_tasks
from models.types import FloatArray, Label, ModelSpec, Value

__all__ = [
    "Alarm",
    "BundleError",
    "DataError",
    "Decision",
    "Engine",
    "Evaluation",
    "Feedback",
    "FloatArray",
    "InputError",
    "Label",
    "Mask",
    "Model",
    "ModelSpec",
    "ModelsError",
    "Outcome",
    "Prediction",
    "Report",
    "Run",
    "Scores",
    "SnapshotError",
    "Status",
    "StreamConfig",
    "Table",
    "Tick",
    "TrainProgress",
    "TrainSettings",
    "TrainingError",
    "TrainingReport",
    "Value",
    "column_names",
    "default_window",
    "evaluate",
    "events",
    "prequential",
    "read_bundle",
    "read_stream_names",
    "read_table",
    "read_table_for",
    "rolling_score",
    "rows_mask",
    "score_rows",
    "streams_mask",
    "summarise",
    "summarise_streams",
    "write_bundle",
    "train_table",
    "train_tasks",
]
