"""Continual meta-learning: a model's initialization learned further on newly logged rows, and judged against itself.

The new version keeps features, target, lags, classes and experts, so that streams can take it over. Rows are cut in
time: the end is for judging the two versions, the stretch before it says when to stop, all earlier ones are learned.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from models.bundle import Model, write_bundle
from models.prequential import Report
from models.scores import Scores
from models.starting import with_start_of
from models.tasks.table import Table
from models.trainer import ITERATIONS, held_out_scores
from models.training import Follow, TrainSettings, fit, judge, part_of, split_table


class Continued(NamedTuple):
    """What came of it.

    Attributes:
        model: The new version.
        old: The old version's figures on the held-out end, each stretch from a cold start.
        new: The new version's.
        measure: What they are compared by.
        old_error: By that measure, lower is better.
        new_error: By that measure, lower is better.
        interrupted: By Ctrl-C: the new version is the best so far.
    """

    model: Model
    old: Scores
    new: Scores
    measure: str
    old_error: float
    new_error: float
    interrupted: bool

    @property
    def better(self) -> bool:
        """Whether the new version has the smaller error."""
        return self.new_error < self.old_error


def continue_training(model: Model, table: Table, settings: TrainSettings, progress: Follow) -> Continued:
    """Meta-train a model further.

    Args:
        model: The version to begin with; it is left as it was.
        table: Rows as the model takes them, oldest first.
        settings: Budget, seed, delay and journal count; all else stays as it is in the model.
        progress: Told how far it is.

    Raises:
        DataError: The rows are too few.
        TrainingError: Training failed.
    """
    outer = split_table(table, settings.delay, whole_streams=False)  # what judges is never learned from
    earlier = np.zeros(table.rows, dtype=np.bool_)
    earlier[np.concatenate(outer.learn)] = True
    inner = split_table(table.take(earlier), settings.delay, whole_streams=False)
    seconds, follow = 60.0 * settings.budget_minutes, part_of(progress, 0.0, 1.0, "meta-training further")
    fitted = fit(model.spec, with_start_of(inner, model), settings, seconds, ITERATIONS, follow, model.meta)
    new = fitted.model
    reports = [judge(each, outer) for each in (model, new)]
    (old_error, new_error), measure = [_error(report) for report in reports], "mean absolute error"
    if model.spec.task == "classification":
        measure = "log loss"
    scores = held_out_scores(new, reports[1], settings.seed)
    compared = {"adapted, before": float(reports[0].adapted.score.mean()), "measure": measure}
    provenance = {
        **model.spec.provenance,
        "data": table.name,
        "part": table.part,
        "rows": table.rows,
        "streams": len(table.stream_names),
        "delay": settings.delay,
        "seed": settings.seed,
        "scores": scores,
        "library": version("acclimate"),
        "parent": _parent(model, {**compared, "error": old_error, "error_now": new_error}),
    }
    return Continued(
        Model(replace(model.spec, provenance=provenance), new.meta),
        reports[0].scores()[1],
        reports[1].scores()[1],
        measure,
        old_error,
        new_error,
        fitted.interrupted,
    )


def bundle_checksum(model: Model) -> str:
    """Digest of a bundle's bytes, as a store names its versions."""
    return hashlib.blake2b(write_bundle(model), digest_size=16).hexdigest()


def _error(report: Report) -> float:
    run = report.adapted
    return float((run.loss if report.table.task == "classification" else run.score).mean())


def _parent(model: Model, judged: Mapping[str, Any]) -> dict[str, Any]:
    """What the new version comes from, and how the two compared."""
    known = ("data", "rows", "library", "seed")
    said = {key: model.spec.provenance[key] for key in known if key in model.spec.provenance}
    return {"checksum": bundle_checksum(model), **said, **judged}
