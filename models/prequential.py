"""Test, then train: how well a model's streams are predicted while their labels come in (``lockstep`` says when)."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from models.adaptation import predict_initial
from models.answers import Outcome, Prediction
from models.bundle import Model
from models.calibration import LEVEL
from models.combination import unpack
from models.committee import row_nll
from models.engine import Engine, Feedback
from models.features import Scales, lag_columns, standardise
from models.lockstep import LANES, PREDICT_ROWS, Event, Progress, run
from models.plan import Plan
from models.scores import Alarm, Run, Scores, score_rows, summarise
from models.targets import from_scale, label_interval, log_slope, to_scale
from models.tasks.labels import table_targets
from models.tasks.table import IntArray, Mask, Table
from models.types import FloatArray, ModelSpec
from models.unnamed import certainty, likeliest, losses


class Report(NamedTuple):
    """A prequential run of a model and of its frozen initialization on the same rows.

    Attributes:
        adapted: The streams as served.
        frozen: The meta-initialization, which never learns, with the same lag values.
        lags: (rows, L) lag values that each row was predicted with.
        scored: (rows,) rows that count.
        table: The rows.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is known.
        members: What each live member of the committee said alone, where that was asked for.
        named: (rows,) how many labels the row's stream had named when it was predicted, where classes are open.
    """

    adapted: Run
    frozen: Run
    lags: FloatArray
    scored: Mask
    table: Table
    batch: int
    delay: int
    members: tuple[Run, ...] = ()
    named: IntArray | None = None

    def scores(self) -> tuple[Scores, Scores]:
        """Figures of the frozen initialization and of the adapted streams."""
        return summarise(self.frozen, self.table, self.scored), summarise(self.adapted, self.table, self.scored)


def prequential(
    engine: Engine,
    table: Table,
    *,
    batch: int = 1,
    delay: int = 0,
    scored: Mask | None = None,
    members: bool = False,
    progress: Progress | None = None,
    lanes: int = LANES,
) -> Report:
    """Run a table's streams through an engine, test then train.

    Args:
        engine: Each stream of the table starts at its model's meta-initialization.
        table: The rows.
        batch: Rows of a batch, ≥ 1.
        delay: Rows of the file after which a label is known, ≥ 0.
        scored: (rows,) bool, rows that count; all by default. Every row is run.
        members: Whether what each member says is kept, too; takes a prediction a row more.
        progress: Told the number of rows learned so far.
        lanes: Most streams that move in one call; 1 is the plain loop over one stream after the other.

    Returns:
        The report.

    Raises:
        InputError: A value that the model cannot take.
    """
    contender = _Adapted(engine, table, members=members)
    cpu_seconds = run(contender, table, batch=batch, delay=delay, progress=progress, lanes=lanes)
    adapted = Run(
        "adapted",
        score_rows(table.task, contender.predicted, contender.truth),
        np.square(contender.predicted - contender.truth),
        contender.loss,
        cpu_seconds,
        tuple(sorted(contender.alarms, key=lambda alarm: alarm.file_row)),
    )
    adapted = contender.state_certainty(adapted)
    lags = contender.asked[:, : lag_columns(engine.model.spec)]
    named, known = (contender.named, contender.known) if engine.model.spec.target.ways else (None, None)
    frozen = run_frozen(engine.model, table, contender.inputs, contender.targets, lags, known)
    everything = np.ones(table.rows, dtype=np.bool_)
    alone = contender.runs_of_members() if members else ()
    return Report(adapted, frozen, lags, everything if scored is None else scored, table, batch, delay, alone, named)


class _Adapted:
    """The engine as a contender; collects what it answers."""

    def __init__(self, engine: Engine, table: Table, *, members: bool = False) -> None:
        self.engine = engine
        self.members = members
        self.table = table
        self.spec = engine.model.spec
        self.level = LEVEL if table.task == "regression" else None
        self.inputs = engine.encode_inputs(table.values())
        self.labels = table.targets()
        self.targets = table_targets(self.spec, table)
        self.truth = self.targets[:, 0]
        self.predicted = np.full(table.rows, math.nan)
        self.loss = np.full(table.rows, math.nan)
        self.confidence = np.full(table.rows, math.nan)
        self.ends = np.full((table.rows, 2), math.nan)
        self.asked = np.zeros((table.rows, 0))
        self.alarms: list[Alarm] = []
        self.stream_of: dict[int, int] = {}
        self.named, self.known = np.zeros((2, table.rows), dtype=np.int64)
        """How many classes a row's stream had when it was predicted, and before it was learned."""

    def open(self, stream: int) -> int:
        slot = self.engine.create()
        self.stream_of[slot] = stream
        return slot

    def close(self, handle: int) -> None:
        self.engine.release(handle)
        del self.stream_of[handle]

    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        answers = self.engine.predict([(slot, self.inputs[rows]) for slot, rows in items], self.level)
        for (_, rows), answer in zip(items, answers, strict=True):
            self._take(rows, answer)
            self.loss[rows] = row_losses(self.spec, answer, self.truth[rows])

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        if self.members:
            self.predict([(slot, event.rows) for slot, event in items if event.predict])
        feedback = [
            Feedback(
                slot,
                self.inputs[event.rows],
                self.targets[event.rows],
                None if event.predict else self.asked[event.rows],
                labels=[self.labels[row] for row in event.rows],
            )
            for slot, event in items
        ]
        tick = self.engine.step(feedback, self.level)
        self.engine.apply(tick)
        for (slot, event), outcome in zip(items, tick.outcomes, strict=True):
            if event.predict:
                self._take(event.rows, outcome.prediction)
                self.loss[event.rows] = outcome.loss
            self.known[event.rows] = len(outcome.prediction.classes or ())
            if outcome.decision.kind == "drift":
                self._raise(self.stream_of[slot], int(event.rows[-1]), outcome)

    def _take(self, rows: IntArray, answer: Prediction) -> None:
        if answer.classes is not None and answer.probabilities is not None:
            index = {(type(label), label): slot for slot, label in enumerate(answer.classes)}
            self.named[rows] = len(index)
            self.predicted[rows] = [index.get((type(label), label), -1) for label in answer.predictions]
            self.confidence[rows] = np.max(answer.probabilities, axis=1, initial=0.0)
        else:
            self.predicted[rows] = answer.predictions
            self.ends[rows] = answer.intervals
        if answer.asked.shape[1]:
            if not self.asked.shape[1]:
                self.asked = np.full((self.table.rows, answer.asked.shape[1]), math.nan)
            self.asked[rows, : answer.asked.shape[1]] = answer.asked

    def runs_of_members(self) -> tuple[Run, ...]:
        """What each live member answers where it is asked alone."""
        plan, first = Plan.of(self.spec), lag_columns(self.spec)
        packed = torch.from_numpy(self.asked[None, :, first:])
        said = unpack(self.spec, packed, plan.members).members.mean[0].numpy()  # (M, rows, ·)
        unknown = np.full(self.table.rows, math.nan)
        names = [f"{name} {at}" for name, learner in plan.learners.items() for at in range(learner.members)]
        runs = []
        for name, mean in zip(names, said, strict=True):
            if self.table.task == "regression":
                predicted = from_scale(self.spec.target, mean)[:, 0]
            else:
                asked_for = self.named if self.spec.target.ways else np.full(len(mean), mean.shape[-1])
                predicted = likeliest(mean, asked_for).astype(np.float64)
            runs.append(Run(name, score_rows(self.table.task, predicted, self.truth), unknown, unknown))
        return tuple(runs)

    def state_certainty(self, adapted: Run) -> Run:
        """The run with what was stated beside its answers."""
        if self.table.task == "classification":
            return adapted._replace(confidence=self.confidence)
        return adapted.with_intervals(self.ends[:, 0], self.ends[:, 1], self.truth)

    def _raise(self, stream: int, file_row: int, outcome: Outcome) -> None:
        since = outcome.decision.rows_since_change
        self.alarms.append(
            Alarm(
                stream=self.table.stream_names[stream],
                row=outcome.rows_seen - 1,
                file_row=file_row,
                detector=self.spec.detector.name,
                statistic=outcome.decision.statistic,
                change_row=outcome.rows_seen - since if since > 0 else -1,
            )
        )


@torch.no_grad()
def run_frozen(
    model: Model,
    table: Table,
    inputs: FloatArray,
    targets: FloatArray,
    lags: FloatArray | None = None,
    named: IntArray | None = None,
) -> Run:
    """The meta-initialization on every row of a table, learning nothing.

    Args:
        model: The model.
        table: The rows.
        inputs: (rows, D) encoded inputs.
        targets: (rows, O) encoded targets.
        lags: (rows, L) lag values that each row was predicted with.
        named: (rows,) how many labels the row's stream had named before it was learned, where classes are open.
    """
    spec, plan = model.spec, Plan.of(model.spec)
    raw = [standardise(Scales.of(spec.features), inputs)] + ([] if lags is None else [lags])
    z = torch.from_numpy(np.concatenate(raw, axis=1).astype(np.float32))[None]  # (1, rows, D + L)
    scaled = to_scale(spec.target, targets) if spec.task == "regression" else targets
    y = torch.from_numpy(scaled.astype(np.float32))[None]
    truth, predicted, loss = targets[:, 0], np.empty(table.rows), np.empty(table.rows)
    confidence, ends = np.empty(table.rows), np.empty((2, table.rows))
    began = time.process_time()
    for start in range(0, table.rows, PREDICT_ROWS):
        rows = slice(start, start + PREDICT_ROWS)
        served, fresh, members = predict_initial(plan, model.meta, z[:, rows])
        at = y[:, rows] if spec.task == "regression" else y[:, rows, 0].to(torch.int64)
        loss[rows] = row_nll(spec.task, members, fresh["weights"], spec.challenger_share, at)[0].numpy()
        if spec.task == "regression":
            mean, std = served.mean[0].double().numpy(), served.var[0].double().sqrt().numpy()
            predicted[rows] = from_scale(spec.target, mean)[:, 0]
            ends[:, rows] = [end[:, 0] for end in label_interval(spec.target, mean, std, LEVEL)]
        elif named is not None:
            log_p, own = served.mean[0].double().numpy(), named[rows]
            predicted[rows] = likeliest(log_p, own)
            loss[rows] = losses(log_p, truth[rows].astype(np.int64), own)
            confidence[rows] = certainty(log_p, own)
        else:
            top = served.mean[0].max(-1)
            predicted[rows], confidence[rows] = top.indices.numpy(), top.values.exp().numpy()
    cpu_seconds = time.process_time() - began
    if spec.task == "regression":
        loss -= log_slope(spec.target, targets).sum(-1)
    score = score_rows(spec.task, predicted, truth)
    frozen = Run("frozen start", score, np.square(predicted - truth), loss, cpu_seconds)
    if spec.task == "classification":
        return frozen._replace(confidence=confidence)
    return frozen.with_intervals(ends[0], ends[1], truth)


def row_losses(spec: ModelSpec, answer: Prediction, truth: FloatArray) -> FloatArray:
    """Negative log-likelihood in nats of each row under an answer given earlier.

    Args:
        spec: The model.
        answer: Probabilities, or means and standard deviations. For regression the density is taken as normal in the
            model's own scale of the target.
        truth: (rows,) or (rows, O) labels, or class indices; one without a probability had no name then.

    Returns:
        (rows,) nats.
    """
    if answer.probabilities is not None and answer.unnamed is not None:
        rows = zip(
            truth.reshape(len(truth)).astype(np.int64).tolist(), answer.probabilities, answer.unnamed, strict=True
        )
        likely = np.array([(1 - other) * said[slot] if slot < len(said) else other for slot, said, other in rows])
        return np.asarray(-np.log(np.clip(likely, 1e-12, 1.0)), dtype=np.float64)
    if answer.probabilities is not None:
        chosen = np.array(answer.probabilities)[np.arange(len(truth)), truth.reshape(len(truth)).astype(np.int64)]
        return np.asarray(-np.log(np.clip(chosen, 1e-12, 1.0)), dtype=np.float64)
    if answer.std is None:
        return np.full(len(truth), math.nan)
    labels = truth.reshape(len(truth), -1)  # (rows, O)
    mean, std = np.array(answer.predictions).reshape(labels.shape), np.array(answer.std).reshape(labels.shape)
    deviation = to_scale(spec.target, labels) - to_scale(spec.target, mean)
    scaled = np.maximum(std, 1e-12) * np.exp(log_slope(spec.target, mean))
    normal = 0.5 * np.square(deviation / scaled) + np.log(scaled) + 0.5 * math.log(2 * math.pi)
    return np.asarray((normal - log_slope(spec.target, labels)).sum(-1), dtype=np.float64)
