"""The steps that training a model on a table is made of: settings, the held-out end, one fit, one judgement."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.boosting import Boosting
from models.bundle import Model
from models.engine import Engine
from models.errors import DataError
from models.experts import part
from models.journal import Journal, kept
from models.learners import Learner
from models.metatrain import Checkpoint, Keep, Progress, Source, Trained, meta_train
from models.plan import Plan
from models.prequential import Report, prequential
from models.tabular import Tabular
from models.tasks.episodes import Prepared, Stretches, held_out, prepare
from models.tasks.table import IntArray, Table
from models.types import Batch, Episode, ModelSpec, TaskKind, Tensors

HELD_OUT = 0.15
"""Share of the rows, the last in time, that are held out for meta-validation."""
STREAMS_MIN, STREAMS_HELD_OUT = 4, 0.2
"""Of so many streams or more this share is held out whole: the next client is a new one."""
SEGMENT_ROWS = 256
"""Held-out rows are scored in stretches of this length, each its own stream from a cold start."""
VALIDATE_EVERY = 50
"""Iterations between meta-validations."""
CLEARLY = 0.01
"""A later option, which asks for more, wins only if it lowers the held-out error by this share."""
OUTER_LR = 3e-3
WEIGHT_DECAY = 0.1
ROWS_MIN = 40
"""Fewer rows cannot be held out and learned from."""


ARCHIVE_MAX = 16
"""Most regimes that a stream remembers."""


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
        classes: ``fixed`` to those of the table, or ``open``: each stream names its own as their labels come.
        ways: Most classes of a stream, where they are open; None takes the most that a stream of the table has.
        start: What frozen start ``auto`` gives experts: boosted trees where scikit-learn is installed, else a network.
        archive_segments: Left regimes that each Bayesian head of a stream remembers, 0 to ARCHIVE_MAX.
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
    classes: Literal["fixed", "open"] = "fixed"
    ways: int | None = None
    archive_segments: int = 0
    start: Literal["auto", "trees", "network"] = "auto"
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


class Start(NamedTuple):
    """A fitted frozen start: its tensors as in a model's, and its answers (rows, K) on every row of a table.

    ``how`` says how it was fitted; None for one that a model had already.
    """

    tensors: Tensors
    answers: Tensor
    how: Boosting | Tabular | None = None


class Split(NamedTuple):
    """A table with its held-out rows.

    Attributes:
        table: All rows.
        delay: Rows of the table after which a label is known.
        learn: Indices of the rows to learn from, stream by stream.
        judge: Indices of the held-out rows, stream by stream.
        segments: The held-out rows in stretches, each its own stream.
        unseen: The rows of those streams that are held out whole; None where there are none.
        start: A frozen start that was fitted on the rows to learn from.
    """

    table: Table
    delay: int
    learn: list[IntArray]
    judge: list[IntArray]
    segments: Table
    unseen: Table | None = None
    start: Start | None = None


class Interrupted(Exception):  # noqa: N818 - no error: the user has seen enough
    """Ctrl-C, with what there was by then."""

    def __init__(self, model: Model) -> None:
        super().__init__("interrupted")
        self.model = model


def split_table(table: Table, delay: int, *, whole_streams: bool = True) -> Split:
    """Hold out the end of the time axis, all streams together, and the last of several streams as a whole.

    What is learned must serve both: the streams at hand as they change, and streams that are not there yet.

    Args:
        table: Rows in time order.
        delay: Rows of the table after which a label is known.
        whole_streams: Whether whole streams are held out, too, where there are enough.

    Raises:
        DataError: Rows are too few.
    """
    first = math.floor((1 - HELD_OUT) * table.rows)
    if table.rows < ROWS_MIN or first == table.rows:
        raise DataError(f"{table.name}: {table.rows} rows are too few to train on; give {ROWS_MIN} or more")
    streams = by_stream(table)
    held = np.arange(table.rows) >= first
    unseen = None
    if whole_streams and len(streams) >= STREAMS_MIN:
        whole = table.streams >= len(streams) - round(STREAMS_HELD_OUT * len(streams))
        held, unseen = held | whole, table.take(whole)
    learn = [places[~held[places]] for places in streams]
    judge = [places[held[places]] for places in streams]
    return Split(table, delay, [part for part in learn if len(part)], judge, segments_of(table.take(held)), unseen)


def by_stream(table: Table) -> list[IntArray]:
    """Indices of each stream's rows."""
    return [np.flatnonzero(table.streams == code) for code in range(len(table.stream_names))]


def segments_of(table: Table, rows: int = SEGMENT_ROWS) -> Table:
    """The same rows, each stretch of a stream its own stream, of ``rows`` rows at most."""
    codes = np.empty(table.rows, dtype=np.int64)
    names: list[str] = []
    for code, name in enumerate(table.stream_names):
        places = np.flatnonzero(table.streams == code)
        for start in range(0, len(places), rows):
            codes[places[start : start + rows]] = len(names)
            names.append(f"{name}:{start}")
    return table._replace(streams=codes, stream_names=tuple(names))


class Fitted(NamedTuple):
    """What ``fit`` gives: a model, the iterations after which each expert was at its best, whether Ctrl-C came.

    ``score`` is the validation loss at the best, mean over the experts; None without held-out rows.
    """

    model: Model
    iterations: Mapping[str, int]
    interrupted: bool
    score: float | None = None


def fit(
    spec: ModelSpec,
    split: Split,
    settings: TrainSettings,
    seconds: float,
    iterations: int | Mapping[str, int],
    progress: Follow,
    given: Tensors | None = None,
) -> Fitted:
    """Meta-train a spec's experts one after the other; each stops early by the held-out rows, where there are any.

    Args:
        spec: What to train.
        split: The rows; with a start, where the spec asks for one.
        settings: Seed and the like.
        seconds: Most time, all experts together.
        iterations: Most iterations, of every expert or of each by name.
        progress: Told how far it is.
        given: A model's learned tensors to go on from, instead of random ones. An expert that validates no better than
            with them keeps them.
    """
    start = split.start if spec.start else None
    data = prepare(spec, split.table, split.delay, None if start is None else start.answers)
    meta: Tensors = {} if start is None else dict(start.tensors)
    done: dict[str, int] = {}
    scores: list[float | None] = []
    interrupted = False
    learners = Plan.of(spec).learners
    for position, (name, learner) in enumerate(learners.items()):
        most = iterations if isinstance(iterations, int) else iterations[name]
        follow = part_of(progress, position / len(learners), (position + 1) / len(learners), "")
        seen = data._replace(
            x=data.x[:, : learner.inputs], start_columns=data.start_columns * spec.experts[position].on_start
        )
        limit = 0 if interrupted else most  # after Ctrl-C the rest starts where it begins
        own = None if given is None else part(given, name)
        trained = _fit_expert(learner, seen, split, settings, seconds / len(learners), limit, follow, own)
        meta |= {f"{name}.{key}": value for key, value in trained.meta.items()}
        done[name] = trained.best_iteration
        scores.append(trained.score)
        interrupted = interrupted or trained.interrupted
    known = [score for score in scores if score is not None]
    mean = sum(known) / len(known) if len(known) == len(scores) else None
    fitted = Fitted(Model(spec, meta), done, interrupted, mean)
    if settings.journal is not None:
        settings.journal.latest = fitted.model
    return fitted


def _fit_expert(
    learner: Learner,
    data: Prepared,
    split: Split,
    settings: TrainSettings,
    seconds: float,
    iterations: int,
    progress: Follow,
    given: Tensors | None = None,
) -> Trained:
    episodes = held_out(data, split.judge, sequential=learner.sequential, rows=SEGMENT_ROWS // 2)
    source: Source = Stretches(data, split.learn, learner.sequential).draw
    generator = torch.Generator().manual_seed(settings.seed)
    rows = np.concatenate(split.learn)
    rows = rows[:0] if data.ways else rows  # which class is which says nothing that a closed form could settle
    known = Batch(data.x[rows][None], data.y[rows][None], torch.ones(1, len(rows), dtype=torch.bool))

    @torch.no_grad()
    def score(meta: Tensors) -> float:
        return float(np.mean([float(learner.meta_loss(meta, episode)) for episode in episodes]))

    first = learner.meta_init(generator) if given is None else given
    settled = learner.warm_start(first, known)
    before = score(first) if given is not None and episodes else None
    if before is not None and before <= score({**first, **settled}):
        settled = {key: first[key] for key in settled}  # new rows do not say more than what it was learned from

    def train(resume: Checkpoint | None, keep: Keep | None) -> Trained:
        return meta_train(
            _Unsettled(learner, settled),
            source,
            start={key: value for key, value in first.items() if key not in settled},
            generator=generator,
            iterations=iterations,
            budget_seconds=seconds,
            outer_lr=OUTER_LR,
            weight_decay=WEIGHT_DECAY,
            validate=(lambda meta: score({**settled, **meta})) if episodes else None,
            validate_every=VALIDATE_EVERY,
            progress=following(progress),
            resume=resume,
            keep=keep,
        )

    trained = kept(settings.journal if iterations else None, train)  # without iterations there is nothing to resume
    if before is not None and (trained.score is None or before <= trained.score):
        return trained._replace(meta=first, score=before, best_iteration=0)
    return trained._replace(meta={**settled, **trained.meta})


class _Unsettled(NamedTuple):
    """A learner as the outer loop sees it: without the tensors that a closed form has settled."""

    learner: Learner
    settled: Tensors

    def meta_init(self, generator: torch.Generator) -> Tensors:
        return {key: value for key, value in self.learner.meta_init(generator).items() if key not in self.settled}

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        return self.learner.meta_loss({**self.settled, **meta}, episode, progress)


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
