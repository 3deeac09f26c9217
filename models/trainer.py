"""From a table or a task family to a model: what ``acclimate train`` does.

The end of the table's time axis is held out. On it ``auto`` chooses what is made of the target and of its lags, and
when to stop; then the chosen model is trained once more on every row, for as many iterations.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal, NamedTuple

import numpy as np
import torch

from models.baselines import online_sgd
from models.bundle import Model
from models.engine import Engine
from models.errors import DataError, TrainingError
from models.features import encode_rows, input_width
from models.learners import LEARNERS, Learner
from models.metatrain import Progress, Source, Trained, meta_train
from models.prequential import Report, prequential
from models.scores import Run
from models.targets import encode_targets
from models.tasks.episodes import (
    Stretches,
    fit_features,
    fit_target,
    held_out,
    likely_power,
    own_delay,
    prepare,
    season_rows,
)
from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes
from models.tasks.table import IntArray, Table
from models.types import DetectorChoice, Expert, Feature, Lags, ModelSpec, Target, TaskKind, Tensors

HELD_OUT = 0.15
"""Share of the rows, the last in time, that are held out for meta-validation."""
SEGMENT_ROWS = 256
"""Held-out rows are scored in stretches of this length, each its own stream from a cold start."""
LAG_RATES = (0.1, 0.02)
ITERATIONS = 600
PROBE_ITERATIONS = 100
"""Iterations of the short runs that compare targets and lags."""
PROBE_SHARE = 0.1
"""Most of the budget that one of these may take."""
VALIDATE_EVERY = 50
OUTER_LR = 3e-3
WEIGHT_DECAY = 0.1
SINUSOID_ITERATIONS = 15_000
CLEARLY = 0.01
"""More inputs are taken on only if they lower the held-out error by this share."""
MILESTONES = (0, 1, 5, 10, 20, 50, 100, 200)
"""Batches learned, at which held-out scores are reported (each up to the next)."""

DEFAULTS: Mapping[str, tuple[Mapping[str, object], DetectorChoice]] = {
    "bayes_head": ({"hidden": (64, 32)}, DetectorChoice("llr_cusum")),
    "maml": (
        {"hidden": (64, 32), "inner_lr": 0.05, "steps": 3, "per_step_rates": True},
        DetectorChoice("page_hinkley"),
    ),
    "meta_sgd": ({"hidden": (64, 32), "inner_lr": 0.05, "steps": 1}, DetectorChoice("page_hinkley")),
}
"""Hyper-parameters on tables, and the detector, by learner."""


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
    """

    task: TaskKind | None = None
    lag_target: int | Literal["auto"] = "auto"
    delay: int = 0
    algorithm: str = "auto"
    budget_minutes: float = 5.0
    seed: int = 0
    device: str = "cpu"


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


class _Split(NamedTuple):
    """A table with its held-out end: rows before it, stream by stream, and rows of it."""

    table: Table
    delay: int
    learn: list[IntArray]
    judge: list[IntArray]
    segments: Table


def train_table(table: Table, settings: TrainSettings, progress: Follow) -> tuple[Model, TrainingReport]:
    """Meta-train a model on a table.

    Raises:
        DataError: The table is too small.
        TrainingError: An unknown learner, or training failed.
    """
    name = "bayes_head" if settings.algorithm == "auto" else settings.algorithm
    if name not in LEARNERS:
        raise TrainingError(f"unknown algorithm {name!r}; choose auto or one of {', '.join(LEARNERS)}")
    split = _split(table, settings.delay)
    seconds = 60.0 * settings.budget_minutes
    choices: list[str] = []
    spec = _base_spec(table, name, settings)
    spec = _choose_target(spec, split, settings, seconds, choices, progress)
    spec = _choose_lags(spec, split, settings, seconds, choices, progress)

    model, trained = _fit(spec, split, settings, 0.3 * seconds, ITERATIONS, _part(progress, 0.3, 0.6, "meta-training"))
    report = _judge(model, split)
    scores = _held_out_scores(model, report, settings.seed)
    interrupted = trained.interrupted
    if not interrupted:
        everything = split._replace(learn=_by_stream(table), judge=[])
        iterations = max(VALIDATE_EVERY, trained.best_iteration)
        follow = _part(progress, 0.6, 1.0, "training on all rows")
        model, trained = _fit(spec, everything, settings, 0.4 * seconds, iterations, follow)
        interrupted = trained.interrupted
    provenance = {
        "data": table.name,
        "part": table.part,
        "rows": table.rows,
        "streams": len(table.stream_names),
        "stream_column": table.stream_column,
        "time_column": table.time_column,
        "delay": settings.delay,
        "seed": settings.seed,
        "metric": _metric(spec.task),
        "scores": scores,
        "choices": choices,
        "library": version("acclimate"),
    }
    model = Model(replace(model.spec, provenance=provenance), model.meta)
    return model, TrainingReport(_metric(spec.task), scores, tuple(choices), interrupted)


def train_tasks(family: str, settings: TrainSettings, progress: Follow) -> tuple[Model, TrainingReport]:
    """Meta-train a model on a built-in task family: ``sinusoid``, 10 labelled points a task.

    Raises:
        TrainingError: An unknown family or learner.
    """
    if family != "sinusoid":
        raise TrainingError(f"unknown task family {family!r}; there is sinusoid")
    name = "maml" if settings.algorithm == "auto" else settings.algorithm
    if name not in LEARNERS:
        raise TrainingError(f"unknown algorithm {name!r}; choose auto or one of {', '.join(LEARNERS)}")
    tasks = Sinusoid(noise_std=0.0 if name != "bayes_head" else 0.1)
    hyper: Mapping[str, object] = (
        {"hidden": (128, 128, 32), "skip": False, "full_prior": True}
        if name == "bayes_head"
        else {"hidden": (40, 40), "steps": 5}
    )
    spec = ModelSpec(
        name="sinusoid",
        task="regression",
        features=(Feature("x"),),
        target=Target("y"),
        experts=(Expert(name, name, hyper),),
        detector=DEFAULTS[name][1],
        standardiser_rows=0,
    )
    learner = _learner(spec)
    generator = torch.Generator().manual_seed(settings.seed)
    trained = meta_train(
        learner,
        SinusoidEpisodes(tasks),
        generator=generator,
        iterations=SINUSOID_ITERATIONS,
        budget_seconds=60.0 * settings.budget_minutes,
        progress=_follow(_part(progress, 0.0, 1.0, "meta-training")),
    )
    scores = _sinusoid_scores(learner, trained.meta, tasks, settings.seed)
    provenance = {
        "data": "sinusoid family: amplitude 0.1 to 5, phase 0 to π, x in -5 to 5",
        "iterations": trained.iterations,
        "seed": settings.seed,
        "metric": "mean squared error",
        "scores": scores,
        "library": version("acclimate"),
    }
    model = _model(replace(spec, provenance=provenance), trained)
    return model, TrainingReport("mean squared error", scores, (f"learner {name}",), trained.interrupted)


def _split(table: Table, delay: int) -> _Split:
    first = math.floor((1 - HELD_OUT) * table.rows)
    if table.rows < 40 or first == table.rows:  # noqa: PLR2004 - less cannot be held out and learned from
        raise DataError(f"{table.name}: {table.rows} rows are too few to train on; give 40 or more")
    streams = _by_stream(table)
    learn = [places[places < first] for places in streams]
    judge = [places[places >= first] for places in streams]
    held = np.zeros(table.rows, dtype=np.bool_)
    held[first:] = True
    return _Split(table, delay, [part for part in learn if len(part)], judge, _segments(table.take(held)))


def _by_stream(table: Table) -> list[IntArray]:
    return [np.flatnonzero(table.streams == code) for code in range(len(table.stream_names))]


def _segments(table: Table) -> Table:
    """The same rows, each stretch of a stream its own stream."""
    codes = np.empty(table.rows, dtype=np.int64)
    names: list[str] = []
    for code, name in enumerate(table.stream_names):
        places = np.flatnonzero(table.streams == code)
        for start in range(0, len(places), SEGMENT_ROWS):
            codes[places[start : start + SEGMENT_ROWS]] = len(names)
            names.append(f"{name}:{start}")
    return table._replace(streams=codes, stream_names=tuple(names))


def _base_spec(table: Table, learner: str, settings: TrainSettings) -> ModelSpec:
    hyper, detector = DEFAULTS[learner]
    if learner == "bayes_head":
        hyper = {**hyper, "delay_rows": own_delay(table, settings.delay)}
    offsets = tuple(range(1, settings.lag_target + 1)) if settings.lag_target != "auto" else (1, 2)
    return ModelSpec(
        name=table.name.split(".")[0],
        task=table.task,
        features=fit_features(table),
        target=fit_target(table, 1.0),
        experts=(Expert(learner, learner, hyper),),
        lags=Lags(offsets, LAG_RATES if offsets else ()),
        detector=detector,
    )


def _choose_target(
    spec: ModelSpec, split: _Split, settings: TrainSettings, seconds: float, choices: list[str], progress: Follow
) -> ModelSpec:
    """Whether a numeric target is learned through a power transform."""
    if spec.task == "classification":
        return spec
    power = likely_power(np.asarray(split.table.target, dtype=np.float64))
    if power == 1.0:
        return spec
    options = {"as it is": spec, f"Yeo-Johnson {power:g}": replace(spec, target=fit_target(split.table, power))}
    return _tournament("target", options, split, settings, seconds, choices, _part(progress, 0.0, 0.15, "target"))


def _choose_lags(
    spec: ModelSpec, split: _Split, settings: TrainSettings, seconds: float, choices: list[str], progress: Follow
) -> ModelSpec:
    """Which of the last known labels become inputs."""
    if settings.lag_target != "auto":
        choices.append(f"lagged targets: {settings.lag_target}, as stated")
        return spec
    options = {"none": replace(spec, lags=Lags()), "the last two and their means": spec}
    season = season_rows(split.table)
    waiting = own_delay(split.table, settings.delay)
    if season is not None:
        offset = season * (waiting // season + 1) - waiting
        if offset not in spec.lags.offsets:
            lags = Lags((*spec.lags.offsets, offset), LAG_RATES)
            options[f"and the one {season} rows before"] = replace(spec, lags=lags)
    return _tournament("lagged targets", options, split, settings, seconds, choices, _part(progress, 0.15, 0.3, "lags"))


def _tournament(
    what: str,
    options: Mapping[str, ModelSpec],
    split: _Split,
    settings: TrainSettings,
    seconds: float,
    choices: list[str],
    progress: Follow,
) -> ModelSpec:
    """A short run of every option; a later one wins only if it is clearly better."""
    errors: dict[str, float] = {}
    for position, (name, spec) in enumerate(options.items()):
        follow = _part(progress, position / len(options), (position + 1) / len(options), f"{what}: {name}")
        model, trained = _fit(spec, split, settings, PROBE_SHARE * seconds, PROBE_ITERATIONS, follow)
        score = float(_judge(model, split).adapted.score.mean())
        errors[name] = 1 - score if spec.task == "classification" else score
        if trained.interrupted:
            raise KeyboardInterrupt
    best = next(iter(options))
    for name, error in errors.items():
        if error < (1 - CLEARLY) * errors[best]:
            best = name
    listed = ", ".join(f"{name} {error:.4g}" for name, error in errors.items())
    choices.append(f"{what}: {best} (held-out error after a short run: {listed})")
    return options[best]


def _fit(
    spec: ModelSpec, split: _Split, settings: TrainSettings, seconds: float, iterations: int, progress: Follow
) -> tuple[Model, Trained]:
    """Meta-train one spec; stops early by the held-out rows, where there are any."""
    learner = _learner(spec)
    data = prepare(spec, split.table, split.delay)
    episodes = held_out(data, split.judge, sequential=learner.sequential, rows=SEGMENT_ROWS // 2)
    source: Source = Stretches(data, split.learn, learner.sequential).draw

    @torch.no_grad()
    def validate(meta: Tensors) -> float:
        return float(np.mean([float(learner.meta_loss(meta, episode)) for episode in episodes]))

    trained = meta_train(
        learner,
        source,
        generator=torch.Generator().manual_seed(settings.seed),
        iterations=iterations,
        budget_seconds=seconds,
        outer_lr=OUTER_LR,
        weight_decay=WEIGHT_DECAY,
        validate=validate if episodes else None,
        validate_every=VALIDATE_EVERY,
        progress=_follow(progress),
    )
    return _model(spec, trained), trained


def _judge(model: Model, split: _Split) -> Report:
    return prequential(Engine(model), split.segments, delay=split.delay)


def _held_out_scores(model: Model, report: Report, seed: int) -> dict[str, float]:
    """Scores on the held-out stretches: baselines over all rows, the adapted streams by batches learned."""
    spec, table = model.spec, report.table
    inputs = encode_rows(spec.features, table.values())
    sgd = online_sgd(spec, report, inputs, encode_targets(spec, table.targets()), seed=seed)
    place = np.empty(table.rows, dtype=np.int64)
    for code in range(len(table.stream_names)):
        rows = np.flatnonzero(table.streams == code)
        place[rows] = np.arange(len(rows))
    scores = {
        "frozen start": float(report.frozen.score.mean()),
        "online SGD without meta-learning": float(sgd.score.mean()),
        "adapted": float(report.adapted.score.mean()),
    }
    for first, after in zip(MILESTONES, (*MILESTONES[1:], SEGMENT_ROWS), strict=True):
        scores |= _milestone(report.adapted, (place >= first) & (place < after), first)
    return scores


def _milestone(run: Run, rows: np.ndarray, first: int) -> dict[str, float]:
    return {f"adapted after {first} batches": float(run.score[rows].mean())} if rows.any() else {}


def _sinusoid_scores(learner: Learner, meta: Tensors, tasks: Sinusoid, seed: int) -> dict[str, float]:
    """Mean squared error on 1,000 new tasks, after 0, 5, 10 and 20 labelled points."""
    generator = torch.Generator().manual_seed(seed + 1)
    drawn = tasks.draw(1000, generator)
    query = tasks.rows(drawn, 100, generator)
    scores = {}
    for shots in (0, 5, 10, 20):
        state = learner.init(meta, 1000)
        if shots:
            support = tasks.rows(drawn, shots, generator)
            with torch.no_grad():
                state, _ = learner.update(meta, state, support, support)
        with torch.no_grad():
            mean = learner.predict(meta, state, query.x).mean[:, 0]
        name = "frozen start" if not shots else f"adapted after {shots} points"
        scores[name] = float((mean - drawn.truth(query.x)).square().mean())
    return scores


def _learner(spec: ModelSpec) -> Learner:
    expert = spec.experts[0]
    return LEARNERS[expert.learner](
        task=spec.task, inputs=input_width(spec), outputs=spec.outputs, **expert.hyper_parameters
    )


def _model(spec: ModelSpec, trained: Trained) -> Model:
    return Model(spec, {f"{spec.experts[0].name}.{key}": value for key, value in trained.meta.items()})


def _metric(task: TaskKind) -> str:
    return "accuracy" if task == "classification" else "mean absolute error"


def _part(progress: Follow, start: float, stop: float, description: str) -> Follow:
    """Report progress as a part of the whole."""
    return lambda step: progress(TrainProgress(start + (stop - start) * step.fraction, description))


def _follow(progress: Follow) -> Callable[[Progress], None]:
    return lambda step: progress(TrainProgress(step.fraction, ""))
