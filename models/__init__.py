"""The learning core of acclimate: meta-trained initializations, adapted per stream by one pure function.

Nothing here knows HTTP, clocks, threads of others or where files lie.
"""

from models.adaptation import Observation, step
from models.adaptation import init as init_state
from models.answers import Decision, Outcome, Prediction, Status
from models.bundle import Model, model_fingerprint, read_bundle, write_bundle
from models.calibration import LEVEL, expected_calibration_error, inside
from models.continuing import Continued, bundle_checksum, continue_training
from models.detectors import DETECTORS
from models.engine import Engine, Feedback, Tick, Watched
from models.errors import BundleError, DataError, InputError, ModelsError, SnapshotError, TrainingError
from models.evaluation import Evaluation, EvaluationProgress, evaluate
from models.journal import Journal, fingerprint
from models.learners import LEARNERS, Learner
from models.lockstep import events
from models.memory import Rows
from models.metatrain import Progress as MetaProgress
from models.metatrain import meta_train
from models.plan import Plan
from models.portable import read_stream, write_stream
from models.prequential import Report, prequential, row_losses
from models.process import use_threads
from models.reverting import Turn
from models.rivers import RIVER_MODELS, river_factory, river_installed
from models.scores import (
    AFTER_ALARM_ROWS,
    Alarm,
    Run,
    Scores,
    after_alarms,
    default_window,
    rank_in_stream,
    rolling_score,
    score_rows,
    summarise,
    summarise_streams,
)
from models.stream_config import StreamConfig
from models.tabular import Tabular, fit_network, network_scores
from models.tasks import (
    Mask,
    Table,
    column_names,
    join_tables,
    label_slots,
    read_stream_names,
    read_table,
    read_table_for,
    rows_mask,
    streams_mask,
)
from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes, SinusoidTasks, SwitchingStreams
from models.trainer import train_table, train_tasks
from models.training import TrainingReport, TrainProgress, TrainSettings
from models.types import (
    Batch,
    DetectorChoice,
    Episode,
    Expert,
    Feature,
    FloatArray,
    Label,
    ModelSpec,
    Target,
    Tensors,
    Value,
)
from models.watching import InputShift

__all__ = [
    "AFTER_ALARM_ROWS",
    "DETECTORS",
    "LEARNERS",
    "LEVEL",
    "RIVER_MODELS",
    "Alarm",
    "Batch",
    "BundleError",
    "Continued",
    "DataError",
    "Decision",
    "DetectorChoice",
    "Engine",
    "Episode",
    "Evaluation",
    "EvaluationProgress",
    "Expert",
    "Feature",
    "Feedback",
    "FloatArray",
    "InputError",
    "InputShift",
    "Journal",
    "Label",
    "Learner",
    "Mask",
    "MetaProgress",
    "Model",
    "ModelSpec",
    "ModelsError",
    "Observation",
    "Outcome",
    "Plan",
    "Prediction",
    "Report",
    "Rows",
    "Run",
    "Scores",
    "Sinusoid",
    "SinusoidEpisodes",
    "SinusoidTasks",
    "SnapshotError",
    "Status",
    "StreamConfig",
    "SwitchingStreams",
    "Table",
    "Tabular",
    "Target",
    "Tensors",
    "Tick",
    "TrainProgress",
    "TrainSettings",
    "TrainingError",
    "TrainingReport",
    "Turn",
    "Value",
    "Watched",
    "after_alarms",
    "bundle_checksum",
    "column_names",
    "continue_training",
    "default_window",
    "evaluate",
    "events",
    "expected_calibration_error",
    "fingerprint",
    "fit_network",
    "init_state",
    "inside",
    "join_tables",
    "label_slots",
    "meta_train",
    "model_fingerprint",
    "network_scores",
    "prequential",
    "rank_in_stream",
    "read_bundle",
    "read_stream",
    "read_stream_names",
    "read_table",
    "read_table_for",
    "river_factory",
    "river_installed",
    "rolling_score",
    "row_losses",
    "rows_mask",
    "score_rows",
    "step",
    "streams_mask",
    "summarise",
    "summarise_streams",
    "train_table",
    "train_tasks",
    "use_threads",
    "write_bundle",
    "write_stream",
]
