"""The learning core of acclimate: meta-trained initializations, adapted per stream by one pure function.

Nothing here knows HTTP, clocks, threads of others or where files lie.
"""

from models.answers import Decision, Outcome, Prediction, Status
from models.bundle import Model, read_bundle, write_bundle
from models.engine import Engine, Feedback, Tick, use_threads
from models.errors import BundleError, DataError, InputError, ModelsError, SnapshotError, TrainingError
from models.evaluation import Evaluation, evaluate
from models.learners import LEARNERS, Learner
from models.lockstep import events
from models.metatrain import Progress as MetaProgress
from models.metatrain import meta_train
from models.prequential import Report, prequential, row_losses
from models.scores import Alarm, Run, Scores, default_window, rolling_score, score_rows, summarise, summarise_streams
from models.stream_config import StreamConfig
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
from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes, SinusoidTasks
from models.trainer import train_table, train_tasks
from models.training import TrainingReport, TrainProgress, TrainSettings
from models.types import Batch, Episode, FloatArray, Label, ModelSpec, Tensors, Value

__all__ = [
    "LEARNERS",
    "Alarm",
    "Batch",
    "BundleError",
    "DataError",
    "Decision",
    "Engine",
    "Episode",
    "Evaluation",
    "Feedback",
    "FloatArray",
    "InputError",
    "Label",
    "Learner",
    "Mask",
    "MetaProgress",
    "Model",
    "ModelSpec",
    "ModelsError",
    "Outcome",
    "Prediction",
    "Report",
    "Run",
    "Scores",
    "Sinusoid",
    "SinusoidEpisodes",
    "SinusoidTasks",
    "SnapshotError",
    "Status",
    "StreamConfig",
    "Table",
    "Tensors",
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
    "meta_train",
    "prequential",
    "read_bundle",
    "read_stream_names",
    "read_table",
    "read_table_for",
    "rolling_score",
    "row_losses",
    "rows_mask",
    "score_rows",
    "streams_mask",
    "summarise",
    "summarise_streams",
    "train_table",
    "train_tasks",
    "use_threads",
    "write_bundle",
]
