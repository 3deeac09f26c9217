"""A model against what it has to beat, on the same rows in the same order."""

from collections.abc import Callable
from typing import Any, NamedTuple

from models.baselines import last_value, online_sgd
from models.bundle import Model
from models.engine import Engine
from models.prequential import Report, prequential
from models.rivers import RIVER_MODELS, river_rival
from models.scores import (
    AFTER_ALARM_ROWS,
    Run,
    Scores,
    after_alarms,
    default_window,
    rolling_score,
    summarise,
    summarise_streams,
)
from models.tasks.labels import table_targets
from models.tasks.table import Mask, Table
from models.window import window_ridge

EvaluationProgress = Callable[[str, int], None]
"""Told what runs and how many rows it has learned."""


class Evaluation(NamedTuple):
    """Prequential runs of several contenders over one table.

    Attributes:
        report: The model's own run and its frozen start's.
        runs: All runs; the frozen start first, the adapted streams last.
    """

    report: Report
    runs: tuple[Run, ...]

    @property
    def scores(self) -> list[Scores]:
        """Figures of each run over the scored rows."""
        return [summarise(run, self.report.table, self.report.scored) for run in self.runs]

    @property
    def after_alarms(self) -> list[Scores]:
        """Figures of each run over the scored rows that follow the model's alarms; empty where there are none."""
        table = self.report.table
        rows = self.report.scored & after_alarms(table, self.report.adapted.alarms or ())
        return [summarise(run, table, rows) for run in self.runs] if rows.any() else []

    def as_dict(self) -> dict[str, Any]:
        """For JSON: figures overall and per stream, alarms and rolling scores."""
        table, scored = self.report.table, self.report.scored
        series = {}
        for run in self.runs:
            rows, values = rolling_score(run, scored)
            series[run.name] = {"row": rows.astype(int).tolist(), "score": values.tolist()}
        return {
            "data": table.name,
            "task": table.task,
            "metric": "accuracy" if table.task == "classification" else "mean absolute error",
            "rows": table.rows,
            "scored_rows": int(scored.sum()),
            "batch": self.report.batch,
            "delay": self.report.delay,
            "results": [each.as_dict() for each in self.scores],
            "streams": {
                run.name: {name: each.as_dict() for name, each in summarise_streams(run, table, scored).items()}
                for run in self.runs
            },
            "after_alarms": {
                "rows_each": AFTER_ALARM_ROWS,
                "results": [each.as_dict() for each in self.after_alarms],
            },
            "alarms": [alarm._asdict() for alarm in self.report.adapted.alarms or ()],
            "rolling": {"window_rows": default_window(scored), "series": series},
        }


def evaluate(
    model: Model,
    table: Table,
    *,
    batch: int = 1,
    delay: int = 0,
    scored: Mask | None = None,
    compare: bool = False,
    members: bool = False,
    river: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: EvaluationProgress | None = None,
) -> Evaluation:
    """Run a model over a table, test then train, and its rivals over the same rows.

    Args:
        model: The model.
        table: The rows.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is known.
        scored: (rows,) bool, rows that count; all by default. Every row is run.
        members: Whether the report has a run of each of the committee's members, too.
        compare: Whether online SGD without meta-learning and the window run too.
        river: Whether River's models run too.
        seed: Of online SGD's random start and of River's trees.
        device: Torch device of the engine.
        progress: Told what runs and how far it is.

    Returns:
        Runs of the frozen start, last value, the rivals that were asked for, and the adapted streams.

    Raises:
        TrainingError: River's models are asked for, and River is not installed.
    """

    def follow(name: str) -> Callable[[int], None] | None:
        return None if progress is None else lambda rows: progress(name, rows)

    engine = Engine(model, device=device)
    report = prequential(
        engine, table, batch=batch, delay=delay, scored=scored, members=members, progress=follow("adapted")
    )
    inputs, targets = engine.encode_inputs(table.values()), table_targets(model.spec, table)
    runs = [report.frozen, last_value(model.spec, table, targets, batch=batch, delay=delay)]
    if compare:
        runs.append(online_sgd(model.spec, report, inputs, targets, seed=seed, progress=follow("online SGD")))
        runs.append(window_ridge(model.spec, report, inputs, targets, progress=follow("window")))
    for name, shared in _river_models(table) if river else ():
        label = f"River {name}" + (", shared" if shared else "")
        run = river_rival(
            model.spec, report, inputs, targets, model=name, shared=shared, seed=seed, progress=follow(label)
        )
        runs.append(run)
    return Evaluation(report, (*runs, report.adapted))


def _river_models(table: Table) -> list[tuple[str, bool]]:
    """River's models for a table: by name, and whether one learns all streams."""
    ways = (False, True) if len(table.stream_names) > 1 else (False,)
    return [(name, shared) for name in RIVER_MODELS[table.task] for shared in ways]
