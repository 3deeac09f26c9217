"""From tensors to what a client sees: predictions in label units, scores, a stream at a glance."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models import reverting
from models.adaptation import Observation
from models.combination import LEVELS, reach_of
from models.readaptation import Decisions
from models.reverting import Turn
from models.targets import from_scale, label_std, log_slope
from models.types import FloatArray, Label, ModelSpec, Predictive, Tensors
from models.unnamed import likeliest, losses, shares
from models.vocabulary import Names
from models.watching import InputShift

NEW_ROWS = 20
"""A stream is ``new`` until it has learned this many rows."""
GLANCE = ("rows_seen", "drift_row", "warned", "inputs_warned", "window_rows", "rolling", reverting.KEY)
DRIFTED_ROWS = 100
"""A stream is ``drifted`` for this many rows after an alarm."""


class Decision(NamedTuple):
    """What the detector decided about one batch; logged, and given back on replay.

    Attributes:
        kind: ``drift``, ``warning`` or None.
        rows_since_change: Rows since the estimated change, the batch included; -1 without an estimate.
        statistic: The detector's statistic after the batch.
        threshold: Where it alarms.
        reverted: Whether the frozen start is served after the batch (``reverting``).
    """

    kind: str | None
    rows_since_change: int
    statistic: float
    threshold: float
    reverted: bool = False


class Prediction(NamedTuple):
    """Answers for B rows, as Python values.

    Attributes:
        predictions: Numbers (lists of numbers for several outputs; medians, which absolute error asks for), or labels;
            ``None`` from a stream that has to name its labels itself and has not named one.
        probabilities: (B, C) for classification.
        classes: The labels of the probabilities' columns; where classes are open, those that the stream has named.
        std: Predictive standard deviations, noise included, for regression.
        intervals: [low, high] a row, if asked for.
        asked: (B, L) lag columns that the answers used; from ``Engine.predict`` followed by what each member said,
            which a label that comes late brings along.
        unnamed: Where classes are open, how probable a label is that the stream has not named yet, which the
            probabilities leave out.
        adapted: False where a stream is served the frozen start, since that does better.
    """

    predictions: list[Any]
    probabilities: list[list[float]] | None
    classes: list[Label] | None
    std: list[Any] | None
    intervals: list[Any] | None
    asked: FloatArray
    unnamed: list[float] | None = None
    adapted: bool = True


class Outcome(NamedTuple):
    """What a batch showed, all of it before learning.

    Attributes:
        prediction: The served predictions.
        loss: Mean negative log-likelihood, nats.
        score: Accuracy, or mean absolute error in label units.
        initial_loss: The frozen initialization's loss.
        initial_score: The frozen initialization's score.
        decision: The detector's decision.
        event: ``drift``, ``warning`` where one begins with this batch, or None: what is worth telling.
        action: ``readapt`` after an alarm.
        rows_used: Rows that a re-adaptation used.
        rows_seen: Rows learned so far, the batch included.
        state: ``new``, ``stable``, ``warning`` or ``drifted``.
        kept: False where a result was not finite: the batch was scored but the state before it stays.
        moved: What the batch showed of the inputs, where they have moved.
        turned: Set where the stream is served from its adapted parameters, or from the frozen start, from here on.
    """

    prediction: Prediction
    loss: float
    score: float
    initial_loss: float
    initial_score: float
    decision: Decision
    event: str | None
    action: str | None
    rows_used: int
    rows_seen: int
    state: str
    kept: bool
    moved: InputShift | None = None
    turned: Turn | None = None


class Status(NamedTuple):
    """A stream at a glance; rolling figures are None before the first batch."""

    rows_seen: int
    window_rows: int
    loss: float | None
    score: float | None
    state: str
    rows_since_drift: int | None
    reverted: bool


def answers_of(
    spec: ModelSpec,
    served: Predictive,
    asked: Tensor,
    counts: Sequence[int],
    interval: float | None,
    reach: Tensor | None,
    names: Sequence[Names] | None = None,
) -> list[Prediction]:
    """Served distributions as Python values, stream by stream without the padding.

    Args:
        spec: The model.
        served: (S, B, ·).
        asked: (S, B, ·) what is told with each answer.
        counts: Rows of each stream.
        interval: Coverage of intervals, in (0, 1).
        reach: (S, O, Q) how far labels fall, as ``combination`` tracks it (regression).
        names: Each stream's labels, where classes are open.
    """
    context = asked.double().numpy(force=True)
    if names is not None:
        log_p = served.mean.double().numpy(force=True)
        return [
            _named_answer(log_p[at, :rows], context[at, :rows], own)
            for at, (rows, own) in enumerate(zip(counts, names, strict=True))
        ]
    if spec.task == "classification":
        classes = list(spec.target.classes)
        probabilities = served.mean.double().exp().numpy(force=True)
        best = probabilities.argmax(-1)
        return [
            Prediction(
                [classes[index] for index in best[at, :rows].tolist()],
                probabilities[at, :rows].tolist(),
                classes,
                None,
                None,
                context[at, :rows],
            )
            for at, rows in enumerate(counts)
        ]
    mean = served.mean.double().numpy(force=True)
    std = served.var.double().sqrt().numpy(force=True)
    wide = std
    if reach is not None:
        std = std * reach_of(reach, LEVELS[1])[:, None].double().numpy(force=True)
        if interval is not None:
            wide = wide * reach_of(reach, interval)[:, None].double().numpy(force=True)
    middle, spread = from_scale(spec.target, mean), label_std(spec.target, mean, std)
    low = high = middle
    if interval is not None:
        if reach is None:
            wide = NormalDist().inv_cdf(0.5 + interval / 2) * std
        low, high = from_scale(spec.target, mean - wide), from_scale(spec.target, mean + wide)
    return [
        Prediction(
            _listed(middle[at, :rows]),
            None,
            None,
            _listed(spread[at, :rows]),
            None if interval is None else _listed(np.stack([low[at, :rows], high[at, :rows]], axis=-1)),
            context[at, :rows],
        )
        for at, rows in enumerate(counts)
    ]


def _named_answer(log_p: FloatArray, asked: FloatArray, names: Names) -> Prediction:
    """Log probabilities (B, N) of slots as an answer in the labels that a stream has named."""
    found = shares(log_p, len(names))
    best = found.named.argmax(-1).tolist() if names else []
    answered = [names[index] for index in best] if names else [None] * len(log_p)
    return Prediction(answered, found.named.tolist(), list(names), None, None, asked, found.unnamed.tolist())


def served_scores(scores: "Scores", reverted: npt.NDArray[np.bool_]) -> "Scores":
    """Of streams that are served the frozen start the figures are its."""
    loss, score, initial_loss, initial_score = scores
    return Scores(
        np.where(reverted, initial_loss, loss), np.where(reverted, initial_score, score), initial_loss, initial_score
    )


class Scores(NamedTuple):
    """Figures of a batch of each stream, (S,) each: mean nats and accuracy or mean absolute error in label units."""

    loss: FloatArray
    score: FloatArray
    initial_loss: FloatArray
    initial_score: FloatArray


def scores_of(
    spec: ModelSpec,
    seen: Observation,
    targets: FloatArray,
    mask: npt.NDArray[np.bool_],
    names: Sequence[Names] | None = None,
) -> Scores:
    """Score a step's observations.

    Args:
        spec: The model.
        seen: What the step observed, S streams.
        targets: (S, B, O) label values, or (S, B, 1) class indices; anything on padding.
        mask: (S, B).
        names: Each stream's labels before the batch, where classes are open.
    """
    count = np.maximum(mask.sum(1), 1)

    def mean(rows: FloatArray) -> FloatArray:
        return np.asarray(np.where(mask, rows, 0.0).sum(1) / count, dtype=np.float64)

    def nats(nll: Tensor) -> FloatArray:
        rows = nll.double().numpy(force=True)
        return mean(rows - log_slope(spec.target, targets).sum(-1)) if spec.task == "regression" else mean(rows)

    def score(served: Predictive) -> FloatArray:
        if spec.task == "classification":
            return mean((served.mean.numpy(force=True).argmax(-1) == targets[..., 0]).astype(np.float64))
        return mean(np.abs(from_scale(spec.target, served.mean.double().numpy(force=True)) - targets).mean(-1))

    if names is not None:
        slots = targets[..., 0].astype(np.int64)
        named = np.broadcast_to(np.array([len(own) for own in names])[:, None], slots.shape)
        said = [each.mean.double().numpy(force=True) for each in (seen.served, seen.initial)]
        right = [mean((likeliest(log_p, named) == slots).astype(np.float64)) for log_p in said]
        lost = [mean(losses(log_p, slots, named)) for log_p in said]
        return Scores(lost[0], right[0], lost[1], right[1])
    return Scores(nats(seen.nll), score(seen.served), nats(seen.initial_nll), score(seen.initial))


def outcomes_of(
    spec: ModelSpec,
    seen: Observation,
    before: Tensors,
    new: Tensors,
    z: Tensor,
    counts: Sequence[int],
    scores: Scores,
    interval: float | None = None,
    names: Sequence[Names] | None = None,
) -> list[Outcome]:
    """What each stream's batch showed, from a step's observation and the states before and after it."""
    lags = z[..., len(spec.features) :]
    answers = answers_of(spec, seen.served, lags, counts, interval, before.get("combination.reach"), names)
    reverted = before[reverting.KEY][:, 3] > 0
    if bool(reverted.any()):
        own = answers_of(spec, seen.initial, lags, counts, interval, None, names)
        answers = instead(answers, own, reverted.tolist())
    loss, score, initial_loss, initial_score = (figures.tolist() for figures in scores)
    rows_used, kept, entered = seen.rows_used.tolist(), seen.kept.tolist(), seen.entered.tolist()
    outcomes = []
    for at, status in enumerate(statuses(new)):
        decision = _decision(seen.decisions, at)
        outcomes.append(
            Outcome(
                prediction=answers[at],
                loss=loss[at],
                score=score[at],
                initial_loss=initial_loss[at],
                initial_score=initial_score[at],
                decision=decision,
                event="warning" if entered[at] else "drift" if decision.kind == "drift" else None,
                action="readapt" if decision.kind == "drift" else None,
                rows_used=rows_used[at],
                rows_seen=status.rows_seen,
                state=status.state,
                kept=kept[at],
            )
        )
    return outcomes


def instead(answers: Sequence[Prediction], initial: Sequence[Prediction], reverted: Sequence[bool]) -> list[Prediction]:
    """The frozen start's answers for streams that are served those; what labels need later stays the members'."""
    return [
        other._replace(asked=own.asked, adapted=False) if frozen else own
        for own, other, frozen in zip(answers, initial, reverted, strict=True)
    ]


def statuses(state: Tensors) -> list[Status]:
    """Each stream of a state at a glance; needs its tensors of ``GLANCE`` only."""
    warned = state["warned"] | (state["inputs_warned"] > 0)
    frozen = state[reverting.KEY][:, 3] > 0
    columns = (state["rows_seen"], state["drift_row"], warned, state["window_rows"], state["rolling"], frozen)
    found = []
    for rows_seen, drift_row, warns, window_rows, rolling, reverted in zip(*(c.tolist() for c in columns), strict=True):
        since = rows_seen - drift_row if drift_row >= 0 else None
        if since is not None and since < DRIFTED_ROWS:
            name = "drifted"
        elif warns:
            name = "warning"
        else:
            name = "new" if rows_seen < NEW_ROWS else "stable"
        loss, score, weight = rolling
        known = weight > 0
        loss, score = (loss / weight, score / weight) if known else (None, None)
        found.append(Status(rows_seen, window_rows, loss, score, name, since, reverted))
    return found


def _listed(values: npt.NDArray[np.float64]) -> list[Any]:
    """(B, O, …) as lists a row; one output is not wrapped in a list of its own."""
    plain: list[Any] = (values[:, 0] if values.shape[1] == 1 else values).tolist()
    return plain


def _decision(decisions: Decisions, position: int) -> Decision:
    kind = "drift" if decisions.drift[position] else "warning" if decisions.warning[position] else None
    return Decision(
        kind,
        int(decisions.rows_since_change[position]),
        float(decisions.statistic[position]),
        float(decisions.threshold[position]),
    )
