"""From a table or a task family to a model: what ``acclimate train`` does.

The end of the table's time axis is held out. On it ``auto`` chooses what is made of the target and of its lags, and
when to stop; then the chosen model is trained once more on every row, for as many iterations.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch

from models.baselines import online_sgd
from models.boosting import installed
from models.bundle import Model
from models.casting import cast_members
from models.errors import TrainingError
from models.features import encode_rows
from models.journal import kept
from models.learners import LEARNERS, Learner
from models.metatrain import Checkpoint, Keep, Trained, meta_train
from models.prequential import Report
from models.scores import Run
from models.search import SEARCH_SHARE, choose_network
from models.selection import LAG_RATES, candidates, choose_lags, choose_target
from models.starting import choose_start, enough_for_start, network_of_rows, with_start
from models.tasks.episodes import fit_features, fit_target, own_delay
from models.tasks.labels import label_slots, table_targets
from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes
from models.tasks.table import Table
from models.training import (
    ARCHIVE_MAX,
    SEGMENT_ROWS,
    VALIDATE_EVERY,
    Fitted,
    Follow,
    Interrupted,
    Split,
    TrainingReport,
    TrainSettings,
    by_stream,
    fit,
    following,
    judge,
    learner_of,
    model_of,
    part_of,
    split_table,
)
from models.types import DetectorChoice, Expert, Feature, Lags, ModelSpec, StartKind, Target, TaskKind, Tensors

ITERATIONS = 600
"""Meta-iterations of the full run."""
SINUSOID_ITERATIONS = 15_000
SINUSOID_LR = 3e-3
WAYS_MIN = 2
MILESTONES = (0, 1, 5, 10, 20, 50, 100, 200)
"""Batches learned, at which held-out scores are reported (each up to the next)."""

DEFAULTS: Mapping[str, tuple[Mapping[str, object], DetectorChoice]] = {
    "anil": ({"hidden": (64, 32), "inner_lr": 0.1, "steps": 3, "per_step_rates": True}, DetectorChoice("page_hinkley")),
    "bayes_head": (
        {"hidden": (64, 32), "tau_rows": (100.0, 500.0, 3000.0), "delay_rows": 0},
        DetectorChoice("llr_cusum"),
    ),
    "cavia": ({"hidden": (64, 32), "inner_lr": 0.5, "steps": 3, "context": 8}, DetectorChoice("page_hinkley")),
    "class_posterior": ({"hidden": (64, 32), "delay_rows": 0}, DetectorChoice("llr_cusum")),
    "maml": (
        {"hidden": (64, 32), "inner_lr": 0.05, "steps": 3, "per_step_rates": True},
        DetectorChoice("page_hinkley"),
    ),
    "matchingnet": ({"hidden": (64, 32)}, DetectorChoice("page_hinkley")),
    "meta_sgd": ({"hidden": (64, 32), "inner_lr": 0.05, "steps": 1}, DetectorChoice("page_hinkley")),
    "protonet": ({"hidden": (64, 32)}, DetectorChoice("page_hinkley")),
    "reptile": ({"hidden": (64, 32), "inner_lr": 0.05, "steps": 5}, DetectorChoice("page_hinkley")),
}
"""Hyper-parameters on tables, and the detector, by learner."""
SINUSOID_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "bayes_head": {"hidden": (128, 128, 32), "skip": False, "full_prior": True},
    "cavia": {"hidden": (40, 40), "steps": 1, "inner_lr": 1.0},
    "reptile": {"hidden": (40, 40), "steps": 5, "inner_lr": 0.02},
}
"""Hyper-parameters on the sinusoid family, where a learner wants others than MAML's."""


def train_table(table: Table, settings: TrainSettings, progress: Follow) -> tuple[Model, TrainingReport]:
    """Meta-train a model on a table. Ctrl-C leaves the best so far.

    Raises:
        DataError: The table is too small.
        TrainingError: A learner that is unknown or cannot do the table's task, or training failed.
    """
    learner = _known("bayes_head" if settings.algorithm == "auto" else settings.algorithm, table.task)
    split = split_table(table, settings.delay)
    choices: list[str] = []
    try:
        model, iterations, split = _fit_chosen(_base_spec(table, learner, settings), split, settings, choices, progress)
    except Interrupted as stopped:
        model, iterations = stopped.model, {}
    scores = held_out_scores(model, judge(model, split), settings.seed)
    interrupted = not iterations
    if iterations:
        try:
            final = _fit_all(model.spec, split, settings, iterations, progress)
        except KeyboardInterrupt:  # in the fit of the frozen start, which nobody else watches
            interrupted = True
        else:
            interrupted = final.interrupted
            model = model if interrupted else final.model
    metric = _metric(model.spec.task)
    provenance = {
        **model.spec.provenance,
        "data": table.name,
        "part": table.part,
        "rows": table.rows,
        "streams": len(table.stream_names),
        "stream_column": table.stream_column,
        "time_column": table.time_column,
        "delay": settings.delay,
        "seed": settings.seed,
        "metric": metric,
        "scores": scores,
        "choices": choices,
        "library": version("acclimate"),
    }
    model = Model(replace(model.spec, provenance=provenance), model.meta)
    return model, TrainingReport(metric, scores, tuple(choices), interrupted)


def _fit_all(
    spec: ModelSpec, split: Split, settings: TrainSettings, iterations: Mapping[str, int], progress: Follow
) -> Fitted:
    """The chosen model once more, on every row, for as many iterations as its experts took to their best."""
    everything = split._replace(learn=by_stream(split.table), judge=[])
    if spec.start and split.start is not None and split.start.how is not None:
        everything = with_start(everything, spec, split.start.how)
    enough = {name: max(VALIDATE_EVERY, count) for name, count in iterations.items()}
    follow = part_of(progress, 0.6, 1.0, "training on all rows")
    return fit(spec, everything, settings, 0.4 * _seconds(settings), enough, follow)


def _fit_chosen(
    spec: ModelSpec, split: Split, settings: TrainSettings, choices: list[str], progress: Follow
) -> tuple[Model, Mapping[str, int], Split]:
    """Choose, then meta-train on the rows before the held-out ones.

    Returns:
        The model, the iterations that each expert took to its best, and the split with the start that was fitted.

    Raises:
        Interrupted: By Ctrl-C, with the model so far.
    """
    seconds = _seconds(settings)
    spec = choose_target(spec, split, settings, seconds, choices, progress)
    spec = choose_lags(spec, split, settings, seconds, choices, progress)

    if settings.search:
        share = SEARCH_SHARE * 60.0 * settings.budget_minutes
        spec = choose_network(spec, split, settings, share, choices, part_of(progress, 0.3, 0.45, "network"))
    follow = part_of(progress, 0.45 if settings.search else 0.3, 0.6, "meta-training")
    if settings.algorithm == "auto":
        kind = _start_kind(split, spec, settings, choices)
        bare, spec = spec, candidates(spec, kind)
        try:
            if kind == "boosted_trees":
                split = with_start(split, spec, choose_start(split, spec, settings.seed, choices))
            elif kind:
                split = with_start(split, spec, network_of_rows(spec, split.delay, settings.seed))
        except KeyboardInterrupt:
            raise Interrupted(fit(bare, split, settings, 0.0, 0, follow).model) from None
    fitted = fit(spec, split, settings, 0.3 * seconds, ITERATIONS, follow)
    if fitted.interrupted:
        raise Interrupted(fitted.model)
    try:
        model = cast_members(fitted.model, split, choices) if settings.algorithm == "auto" else fitted.model
    except KeyboardInterrupt:
        raise Interrupted(fitted.model) from None
    if settings.journal is not None:
        settings.journal.latest = model
    return model, {expert.name: fitted.iterations[expert.name] for expert in model.spec.experts}, split


def _start_kind(split: Split, spec: ModelSpec, settings: TrainSettings, choices: list[str]) -> StartKind:
    """The frozen start that experts get."""
    if spec.target.ways or not enough_for_start(split):
        reason = "each stream names its classes itself" if spec.target.ways else "too few rows"
        choices.append(f"frozen start: none, {reason}")
        return ""
    if settings.start == "trees" or (settings.start == "auto" and installed()):
        return "boosted_trees"
    reason = "as asked for" if settings.start == "network" else "boosted trees need scikit-learn, the extra train"
    choices.append(f"frozen start: a tabular network, {reason}")
    return "tabular_network"


def _seconds(settings: TrainSettings) -> float:
    """Time for all but the search, which has its own share."""
    return 60.0 * settings.budget_minutes * (1.0 - SEARCH_SHARE if settings.search else 1.0)


def train_tasks(family: str, settings: TrainSettings, progress: Follow) -> tuple[Model, TrainingReport]:
    """Meta-train a model on a built-in task family: ``sinusoid``, 10 labelled points a task.

    Raises:
        TrainingError: An unknown family, or a learner that is unknown or does not do regression.
    """
    if family != "sinusoid":
        raise TrainingError(f"unknown task family {family!r}; there is sinusoid")
    name = _known("maml" if settings.algorithm == "auto" else settings.algorithm, "regression")
    tasks = Sinusoid(noise_std=0.0 if name != "bayes_head" else 0.1)
    hyper = _with_archive(name, SINUSOID_DEFAULTS.get(name, {"hidden": (40, 40), "steps": 1}), settings)
    spec = ModelSpec(
        name="sinusoid",
        task="regression",
        features=(Feature("x"),),
        target=Target("y"),
        experts=(Expert(name, name, hyper),),
        detector=DEFAULTS[name][1],
        standardiser_rows=0,
    )
    learner = learner_of(spec)

    def train(resume: Checkpoint | None, keep: Keep | None) -> Trained:
        return meta_train(
            learner,
            SinusoidEpisodes(tasks),
            generator=torch.Generator().manual_seed(settings.seed),
            iterations=SINUSOID_ITERATIONS,
            outer_lr=SINUSOID_LR,
            budget_seconds=60.0 * settings.budget_minutes,
            progress=following(part_of(progress, 0.0, 1.0, "meta-training")),
            resume=resume,
            keep=keep,
        )

    trained = kept(settings.journal, train)
    scores = _sinusoid_scores(learner, trained.meta, tasks, settings.seed)
    provenance = {
        "data": "sinusoid family: amplitude 0.1 to 5, phase 0 to π, x in -5 to 5",
        "iterations": trained.iterations,
        "seed": settings.seed,
        "metric": "mean squared error",
        "scores": scores,
        "library": version("acclimate"),
    }
    model = model_of(replace(spec, provenance=provenance), trained)
    return model, TrainingReport("mean squared error", scores, (f"learner {name}",), trained.interrupted)


def _known(learner: str, task: TaskKind) -> str:
    if learner not in LEARNERS:
        raise TrainingError(f"unknown algorithm {learner!r}; choose auto or one of {', '.join(LEARNERS)}")
    if task not in LEARNERS[learner].tasks:
        able = ", ".join(name for name, kind in LEARNERS.items() if task in kind.tasks)
        raise TrainingError(f"{learner} does {', '.join(LEARNERS[learner].tasks)} only, not {task}; choose of {able}")
    return learner


def _with_archive(learner: str, hyper: Mapping[str, object], settings: TrainSettings) -> Mapping[str, object]:
    """Hyper-parameters with the stated archive, where the learner has one."""
    if not 0 <= settings.archive_segments <= ARCHIVE_MAX:
        raise TrainingError(f"a stream remembers 0 to {ARCHIVE_MAX} regimes, got {settings.archive_segments}")
    if not settings.archive_segments:
        return hyper
    if learner != "bayes_head":
        raise TrainingError(f"{learner} remembers no regimes; leave the archive out, or choose bayes_head")
    return {**hyper, "archive_segments": settings.archive_segments}


def _base_spec(table: Table, learner: str, settings: TrainSettings) -> ModelSpec:
    hyper, detector = DEFAULTS[learner]
    if "delay_rows" in hyper:
        hyper = {**hyper, "delay_rows": own_delay(table, settings.delay)}
    hyper = _with_archive(learner, hyper, settings)
    offsets = tuple(range(1, settings.lag_target + 1)) if settings.lag_target != "auto" else (1, 2)
    return ModelSpec(
        name=table.name.split(".")[0],
        task=table.task,
        features=fit_features(table),
        target=fit_target(table, 1.0, _ways(table, settings)),
        experts=(Expert(learner, learner, hyper),),
        lags=Lags(offsets, LAG_RATES if offsets else ()),
        detector=detector,
        delay_rows=own_delay(table, settings.delay),
    )


def _ways(table: Table, settings: TrainSettings) -> int:
    """Most classes of a stream, where they are open; else 0."""
    if settings.classes == "fixed":
        return 0
    if table.task != "classification":
        raise TrainingError("classes can be open in classification only; state --task classification")
    return settings.ways or max(WAYS_MIN, int(label_slots(table).max()) + 1)


def held_out_scores(model: Model, report: Report, seed: int) -> dict[str, float]:
    """Scores on the held-out stretches: baselines over all rows, the adapted streams by batches learned."""
    spec, table = model.spec, report.table
    inputs = encode_rows(spec.features, table.values())
    sgd = online_sgd(spec, report, inputs, table_targets(spec, table), seed=seed)
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


def _metric(task: TaskKind) -> str:
    return "accuracy" if task == "classification" else "mean absolute error"
