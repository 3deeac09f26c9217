"""The steps that training a model on a table is made of: settings, the held-out end, one fit, one judgement."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch

from models.adaptation import Plan
from models.bundle import Model
from models.engine import Engine
from models.errors import DataError
from models.journal import Journal, kept
from models.learners import Learner
from models.metatrain import Checkpoint, Keep, Progress, Source, Trained, meta_train
from models.prequential import Report, prequential
from models.tasks.episodes import Stretches, held_out, prepare
from models.tasks.table import IntArray, Table
from models.types import ModelSpec, TaskKind, Tensors

HELD_OUT = 0.15
"""Share of the rows, the last in time, that are held out for meta-validation."""
SEGMENT_ROWS = 256
"""Held-out rows are scored in stretches of this length, each its own stream from a cold start."""
VALIDATE_EVERY = 50
"""Iterations between meta-validations."""
OUTER_LR = 3e-3
WEIGHT_DECAY = 0.1
ROWS_MIN = 40
"""Fewer rows cannot be held out and learned from."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train.

    Attributes:
        task: What is predicted; None takes the table's.
        lag_target: Number of last known labels that become inputs; ``auto`` lets meta-validation choose.
        delay: Rows of the table after which a label is known.
        algorithm: A name of LEARNERS; ``auto`` is ``bayes_head``.
        budget_minutes: Most time to train.
        seed: Of everything random.
        device: Where tensors live.
        search: Whether meta-validation chooses the sizes of the network.
        journal: Where progress is kept, so that an interrupted training can go on.
    """

    task: TaskKind | None = None
    lag_target: int | Literal["auto"] = "auto"
    delay: int = 0
    algorithm: str = "auto"
    budget_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"
    search: bool = False
    journal: Journal | None = field(default=None, compare=False, repr=False)


class TrainProgress(NamedTuple):
    """How far training is, 0 to 1, and what it does."""

    fraction: float
    description: str


class TrainingReport(NamedTuple):
    """What came out: held-out scores by name, in the order to print them, and what was chosen and why."""

    metric: str
    scores: Mapping[str, float]
    choices: tuple[str, ...]
    interrupted: bool


Follow = Callable[[TrainProgress], None]


class Split(NamedTuple):
    """A table with its held-out end: rows before it, stream by stream, and rows of it."""

    table: Table
    delay: int
    learn: list[IntArray]
    judge: list[IntArray]
    segments: Table


class Interrupted(Exception):  # noqa: N818 - no error: the user has seen enough
    """Ctrl-C, with what there was by then."""

    def __init__(self, model: Model) -> None:
        super().__init__("interrupted")
        self.model = model


def split_table(table: Table, delay: int) -> Split:
    """Hold out the end of the time axis, all streams together. Raises DataError where rows are too few."""
    first = math.floor((1 - HELD_OUT) * table.rows)
    if table.rows < ROWS_MIN or first == table.rows:
        raise DataError(f"{table.name}: {table.rows} rows are too few to train on; give {ROWS_MIN} or more")
    streams = by_stream(table)
    learn = [places[places < first] for places in streams]
    judge = [places[places >= first] for places in streams]
    held = np.zeros(table.rows, dtype=np.bool_)
    held[first:] = True
    return Split(table, delay, [part for part in learn if len(part)], judge, segments_of(table.take(held)))


def by_stream(table: Table) -> list[IntArray]:
    """Indices of each stream's rows."""
    return [np.flatnonzero(table.streams == code) for code in range(len(table.stream_names))]


def segments_of(table: Table) -> Table:
    """The same rows, each stretch of a stream its own stream."""
    codes = np.empty(table.rows, dtype=np.int64)
    names: list[str] = []
    for code, name in enumerate(table.stream_names):
        places = np.flatnonzero(table.streams == code)
        for start in range(0, len(places), SEGMENT_ROWS):
            codes[places[start : start + SEGMENT_ROWS]] = len(names)
            names.append(f"{name}:{start}")
    return table._replace(streams=codes, stream_names=tuple(names))


def fit(
    spec: ModelSpec,
    split: Split,
    settings: TrainSettings,
    seconds: float,
    iterations: int,
    progress: Follow,
    start: Tensors | None = None,
) -> tuple[Model, Trained]:
    """Meta-train one spec, from ``start`` if given; stops early by the held-out rows, where there are any."""
    learner = learner_of(spec)
    data = prepare(spec, split.table, split.delay)
    episodes = held_out(data, split.judge, sequential=learner.sequential, rows=SEGMENT_ROWS // 2)
    source: Source = Stretches(data, split.learn, learner.sequential).draw

    @torch.no_grad()
    def validate(meta: Tensors) -> float:
        return float(np.mean([float(learner.meta_loss(meta, episode)) for episode in episodes]))

    def train(resume: Checkpoint | None, keep: Keep | None) -> Trained:
        return meta_train(
            learner,
            source,
            generator=torch.Generator().manual_seed(settings.seed),
            iterations=iterations,
            budget_seconds=seconds,
            outer_lr=OUTER_LR,
            weight_decay=WEIGHT_DECAY,
            validate=validate if episodes else None,
            validate_every=VALIDATE_EVERY,
            progress=following(progress),
            start=start,
            resume=resume,
            keep=keep,
        )

    trained = kept(settings.journal, train)
    model = model_of(spec, trained)
    if settings.journal is not None:
        settings.journal.latest = model
    return model, trained


def judge(model: Model, split: Split) -> Report:
    """Run a model over the held-out stretches, each from a cold start."""
    return prequential(Engine(model), split.segments, delay=split.delay)


def learner_of(spec: ModelSpec) -> Learner:
    """The learner of a model with one expert."""
    return Plan.of(spec).learners[spec.experts[0].name]


def model_of(spec: ModelSpec, trained: Trained) -> Model:
    """The bundle of a spec and what was learned for its one expert."""
    return Model(spec, {f"{spec.experts[0].name}.{key}": value for key, value in trained.meta.items()})


def part_of(progress: Follow, start: float, stop: float, description: str) -> Follow:
    """Report progress as a part of the whole."""
    return lambda step: progress(TrainProgress(start + (stop - start) * step.fraction, step.description or description))


def following(progress: Follow) -> Callable[[Progress], None]:
    """Pass on how far meta-training is."""
    return lambda step: progress(TrainProgress(step.fraction, ""))
