"""Many streams of one model, hot in slabs of tensors, moved together by ``adaptation.step``."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import adaptation
from models.adaptation import Decisions, Observation, Plan, Rows
from models.bundle import Model
from models.detectors import DETECTORS
from models.errors import InputError
from models.features import encode_rows, standardise
from models.slab import Slab
from models.targets import encode_targets, from_scale, log_slope, to_scale
from models.types import DetectorChoice, FloatArray, Label, ModelSpec, Predictive, Tensors, Value

NEW_ROWS = 20
"""A stream is ``new`` until it has learned this many rows."""
DRIFTED_ROWS = 100
"""A stream is ``drifted`` for this many rows after an alarm."""
WINDOW_ROWS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a client may change for one stream; None keeps the model's.

    Attributes:
        window_rows: Rows retained for re-adaptation, 1 to 10,000.
        steps: Gradient steps of an adaptation, at most as many as were trained.
        detector: A name of DETECTORS.
        alarms_per_1000: Sensitivity of a likelihood-ratio detector: alarms per 1,000 rows where nothing drifts, > 0.
    """

    window_rows: int | None = None
    steps: int | None = None
    detector: str | None = None
    alarms_per_1000: float | None = None


class Decision(NamedTuple):
    """What the detector decided about one batch; logged, and given back on replay.

    Attributes:
        kind: ``drift``, ``warning`` or None.
        rows_since_change: Rows since the estimated change, the batch included; -1 without an estimate.
        statistic: The detector's statistic after the batch.
        threshold: Where it alarms.
    """

    kind: str | None
    rows_since_change: int
    statistic: float
    threshold: float


class Feedback(NamedTuple):
    """Labelled rows of one stream: encoded inputs (B, D) and targets (B, O).

    ``lags`` (B, L) and ``decision`` are given on replay, or where labels came late; None takes the stream's present
    lag columns and asks the detector.
    """

    slot: int
    inputs: FloatArray
    targets: FloatArray
    lags: FloatArray | None = None
    decision: Decision | None = None


class Prediction(NamedTuple):
    """Answers for B rows, as Python values.

    Attributes:
        predictions: Numbers (lists of numbers for several outputs; medians, which absolute error asks for), or labels.
        probabilities: (B, C) for classification.
        classes: The labels of the probabilities' columns.
        std: Predictive standard deviations, noise included, for regression.
        intervals: [low, high] a row, if asked for.
        lags: (B, L) lag columns that the answers used.
    """

    predictions: list[Any]
    probabilities: list[list[float]] | None
    classes: list[Label] | None
    std: list[Any] | None
    intervals: list[Any] | None
    lags: FloatArray


class Outcome(NamedTuple):
    """What a batch showed, all of it before learning.

    Attributes:
        prediction: The served predictions.
        loss: Mean negative log-likelihood, nats.
        score: Accuracy, or mean absolute error in label units.
        initial_loss: The frozen initialization's loss.
        initial_score: The frozen initialization's score.
        decision: The detector's decision.
        action: ``readapt`` after an alarm.
        rows_used: Rows that a re-adaptation used.
        rows_seen: Rows learned so far, the batch included.
        state: ``new``, ``stable``, ``warning`` or ``drifted``.
        kept: False where a result was not finite: the batch was scored but the state before it stays.
    """

    prediction: Prediction
    loss: float
    score: float
    initial_loss: float
    initial_score: float
    decision: Decision
    action: str | None
    rows_used: int
    rows_seen: int
    state: str
    kept: bool


class Status(NamedTuple):
    """A stream at a glance; rolling figures are None before the first batch."""

    rows_seen: int
    window_rows: int
    loss: float | None
    score: float | None
    state: str
    rows_since_drift: int | None


class Tick(NamedTuple):
    """New states that are computed and not served yet; ``Engine.apply`` serves them."""

    slots: list[int]
    states: list[Tensors]
    outcomes: list[Outcome]


class Engine:
    """Hot streams of one model and configuration. Thread-safe: states change in ``apply`` alone, and in one piece."""

    def __init__(self, model: Model, config: StreamConfig | None = None, *, device: str = "cpu") -> None:
        """Build the model's moving parts.

        Args:
            model: A meta-trained initialization.
            config: What differs from the model's own settings.
            device: Where tensors live.

        Raises:
            InputError: ``config`` has a field that the model's experts or detector lack, or a value out of bounds.
        """
        self.model = model
        self.config = config or StreamConfig()
        self._spec = configure(model.spec, self.config)
        self._plan = Plan.of(self._spec)
        self._meta = {name: tensor.to(device) for name, tensor in model.meta.items()}
        self._device = torch.device(device)
        self._lock = threading.Lock()
        with torch.no_grad():
            self._slab = Slab(adaptation.init(self._plan, self._meta, 1))

    def create(self) -> int:
        """A slot at the meta-initialization."""
        with self._lock:
            return self._slab.take(None)

    def restore(self, snapshot: bytes) -> int:
        """A slot with a snapshot's state, byte for byte.

        Raises:
            SnapshotError: It is damaged or belongs to another model or configuration.
        """
        state = self._slab.unpack(snapshot)
        with self._lock:
            return self._slab.take(state)

    def snapshot(self, slot: int) -> bytes:
        """The whole state of a stream."""
        with self._lock:
            state = self._slab.read([slot])
        return self._slab.pack(state)

    def release(self, slot: int) -> None:
        """Forget a stream and reuse its slot."""
        with self._lock:
            self._slab.give_back(slot)

    def encode_inputs(self, rows: Sequence[Sequence[Value] | Mapping[str, Value]]) -> FloatArray:
        """Check input rows: (B, D). Raises InputError with the row, the feature and the reason."""
        return encode_rows(self._spec.features, rows)

    def encode_targets(self, targets: Sequence[Any]) -> FloatArray:
        """Check labels: (B, O) values or (B, 1) class indices. Raises InputError with the row and the reason."""
        return encode_targets(self._spec, targets)

    @torch.no_grad()
    def predict(
        self, items: Sequence[tuple[int, FloatArray]], interval: float | None = None
    ) -> list[Prediction]:
        """Answers for rows of several streams; ``interval`` is the coverage of intervals, in (0, 1)."""
        answers: list[Prediction | None] = [None] * len(items)
        for group in _by_size([len(inputs) for _, inputs in items]):
            with self._lock:
                state = self._slab.read([items[index][0] for index in group])
            z, _ = self._inputs(state, [items[index][1] for index in group], [None] * len(group))
            served, _ = adaptation.predict(self._plan, self._meta, state, z)
            for position, index in enumerate(group):
                rows = len(items[index][1])
                answers[index] = self._answer(_one(served, position, rows), _lags(self._spec, z, position, rows), interval)
        return [answer for answer in answers if answer is not None]

    @torch.no_grad()
    def predict_initial(self, inputs: FloatArray, interval: float | None = None) -> Prediction:
        """The frozen start's answers, with no stream and so without known labels."""
        fresh = adaptation.init(self._plan, self._meta, 1)
        z, _ = self._inputs(fresh, [inputs], [None])
        served, _, _ = adaptation.predict_initial(self._plan, self._meta, z)
        return self._answer(_one(served, 0, len(inputs)), _lags(self._spec, z, 0, len(inputs)), interval)

    @torch.no_grad()
    def step(self, items: Sequence[Feedback]) -> Tick:
        """Learn a batch of each of several streams, at most one a stream; nothing is served before ``apply``."""
        states: list[Tensors] = [{}] * len(items)
        outcomes: list[Outcome | None] = [None] * len(items)
        for group in _by_size([len(item.inputs) for item in items], [item.decision is None for item in items]):
            chosen = [items[index] for index in group]
            with self._lock:
                state = self._slab.read([item.slot for item in chosen])
            z, mask = self._inputs(state, [item.inputs for item in chosen], [item.lags for item in chosen])
            y = _pad([self._scaled(item.targets) for item in chosen], mask.shape[1], self._device)
            decisions = _decisions([item.decision for item in chosen])
            new, seen = adaptation.step(self._plan, self._meta, state, Rows(z, y, mask), decisions)
            for position, index in enumerate(group):
                one = {key: value[position : position + 1].clone() for key, value in new.items()}
                outcomes[index] = self._outcome(items[index], one, seen, z, position)
                states[index] = one
        return Tick([item.slot for item in items], states, [outcome for outcome in outcomes if outcome is not None])

    @torch.no_grad()
    def reset_tick(self, slots: Sequence[int]) -> Tick:
        """Streams back at the meta-initialization; their counters and known labels stay."""
        with self._lock:
            states = [self._slab.read([slot]) for slot in slots]
        return Tick(list(slots), [adaptation.reset(self._plan, self._meta, state) for state in states], [])

    def apply(self, tick: Tick) -> None:
        """Serve the states of a tick: called after their commit."""
        with self._lock:
            for slot, state in zip(tick.slots, tick.states, strict=True):
                self._slab.write(slot, state)

    def status(self, slot: int) -> Status:
        """A stream at a glance."""
        with self._lock:
            state = self._slab.read([slot])
        return self._status(state)

    def _status(self, state: Tensors) -> Status:
        loss, score, weight = state["rolling"][0].tolist()
        rows_seen, drift_row = int(state["rows_seen"]), int(state["drift_row"])
        since = rows_seen - drift_row if drift_row >= 0 else None
        if since is not None and since < DRIFTED_ROWS:
            name = "drifted"
        elif bool(state["warned"]):
            name = "warning"
        else:
            name = "new" if rows_seen < NEW_ROWS else "stable"
        return Status(
            rows_seen,
            int(state["window_rows"]),
            loss / weight if weight else None,
            score / weight if weight else None,
            name,
            since,
        )

    def _inputs(
        self, state: Tensors, inputs: Sequence[FloatArray], lags: Sequence[FloatArray | None]
    ) -> tuple[Tensor, Tensor]:
        """Padded (S, B, D + L) rows with their lag columns, and the mask (S, B)."""
        now = adaptation.lags_now(self._plan, state).to(torch.float64).numpy(force=True)
        blocks = []
        for position, (rows, given) in enumerate(zip(inputs, lags, strict=True)):
            columns = np.broadcast_to(now[position], (len(rows), now.shape[1])) if given is None else given
            blocks.append(np.concatenate([standardise(self._spec.features, rows), columns], axis=1))
        longest = max(len(block) for block in blocks)
        counts = torch.tensor([len(block) for block in blocks])
        return _pad(blocks, longest, self._device), torch.arange(longest)[None, :] < counts[:, None]

    def _scaled(self, targets: FloatArray) -> FloatArray:
        return to_scale(self._spec.target, targets) if self._spec.task == "regression" else targets

    def _answer(self, served: Predictive, lags: FloatArray, interval: float | None) -> Prediction:
        """One stream's rows: ``served`` holds (B, O) or (B, C) tensors."""
        if self._spec.task == "classification":
            classes = list(self._spec.target.classes)
            chosen = [classes[index] for index in served.mean.argmax(-1).tolist()]
            return Prediction(chosen, served.mean.exp().tolist(), classes, None, None, lags)
        mean, std = served.mean.to(torch.float64), served.var.to(torch.float64).sqrt()
        target = self._spec.target
        intervals = None
        if interval is not None:
            reach = std * torch.special.ndtri(torch.tensor(0.5 + interval / 2, dtype=torch.float64))
            low, high = from_scale(target, mean - reach), from_scale(target, mean + reach)
            intervals = [
                _scalar_or_list(pair) for pair in torch.stack([low, high], dim=1).tolist()
            ]
        predictions = [_scalar_or_list(row) for row in from_scale(target, mean).tolist()]
        spread = [_scalar_or_list(row) for row in _label_std(target.power, self._spec, mean, std).tolist()]
        return Prediction(predictions, None, None, spread, intervals, lags)

    def _outcome(self, item: Feedback, state: Tensors, seen: Observation, z: Tensor, position: int) -> Outcome:
        rows = len(item.inputs)
        served, initial = _one(seen.served, position, rows), _one(seen.initial, position, rows)
        lags = _lags(self._spec, z, position, rows)
        answer = self._answer(served, lags, None)
        offset = 0.0
        if self._spec.task == "regression":
            offset = -float(log_slope(self._spec.target, torch.from_numpy(item.targets)).sum(-1).mean())
        loss = float(seen.nll[position, :rows].to(torch.float64).mean()) + offset
        initial_loss = float(seen.initial_nll[position, :rows].to(torch.float64).mean()) + offset
        score, initial_score = self._score(served, item.targets), self._score(initial, item.targets)
        keep = (1 - adaptation.SCORE_RATE) ** rows
        fresh = torch.tensor([[loss, score, 1.0]]) * (1 - keep)
        state["rolling"] = keep * state["rolling"] + fresh
        decision = _decision(seen.decisions, position)
        status = self._status(state)
        return Outcome(
            prediction=answer,
            loss=loss,
            score=score,
            initial_loss=initial_loss,
            initial_score=initial_score,
            decision=decision,
            action="readapt" if decision.kind == "drift" else None,
            rows_used=int(seen.rows_used[position]),
            rows_seen=status.rows_seen,
            state=status.state,
            kept=bool(seen.kept[position]),
        )

    def _score(self, served: Predictive, targets: FloatArray) -> float:
        if self._spec.task == "classification":
            return float((served.mean.argmax(-1).numpy(force=True) == targets[:, 0]).mean())
        predicted = from_scale(self._spec.target, served.mean.to(torch.float64)).numpy(force=True)
        return float(np.abs(predicted - targets).mean())


def configure(spec: ModelSpec, config: StreamConfig) -> ModelSpec:
    """The spec with a stream's configuration applied.

    Raises:
        InputError: A field that the model's experts or detector lack, or a value out of bounds.
    """
    plan = Plan.of(spec)
    adaptable = frozenset[str]().union(*(learner.adaptable for learner in plan.learners.values()))
    for field in ("window_rows", "steps"):
        if getattr(config, field) is not None and field not in adaptable:
            raise InputError(("config", field), f"this model's experts have no {field}; leave it out")
    if config.window_rows is not None:
        if not 1 <= config.window_rows <= WINDOW_ROWS_MAX:
            raise InputError(("config", "window_rows"), f"expected 1 to {WINDOW_ROWS_MAX} rows")
        spec = replace(spec, window_rows=config.window_rows)
    if config.steps is not None:
        spec = _with_steps(spec, config.steps)
    if config.detector is not None and config.detector not in DETECTORS:
        raise InputError(("config", "detector"), f"unknown detector; there are {', '.join(DETECTORS)}")
    if config.detector is not None and config.detector != spec.detector.name:
        spec = replace(spec, detector=DetectorChoice(config.detector))
    if config.alarms_per_1000 is not None:
        if "alarms_per_1000" not in {field.name for field in fields(DETECTORS[spec.detector.name])}:
            raise InputError(("config", "alarms_per_1000"), f"detector {spec.detector.name} has no such setting")
        settings = {**spec.detector.settings, "alarms_per_1000": config.alarms_per_1000}
        spec = replace(spec, detector=DetectorChoice(spec.detector.name, settings))
        Plan.of(spec)
    return spec


def _with_steps(spec: ModelSpec, steps: int) -> ModelSpec:
    experts = []
    for expert in spec.experts:
        trained = expert.hyper_parameters.get("steps")
        if trained is not None and not 1 <= steps <= trained:
            raise InputError(("config", "steps"), f"expected 1 to {trained}, the steps that were trained")
        hyper_parameters = {**expert.hyper_parameters, "steps": steps} if trained is not None else expert.hyper_parameters
        experts.append(replace(expert, hyper_parameters=hyper_parameters))
    return replace(spec, experts=tuple(experts))


def _by_size(rows: Sequence[int], kinds: Sequence[bool] | None = None) -> list[list[int]]:
    """Indices of items of like length (powers of two) and kind, so that padding at most doubles the work."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, count in enumerate(rows):
        kind = kinds[index] if kinds else True
        groups.setdefault((max(count - 1, 0).bit_length(), kind), []).append(index)
    return list(groups.values())


def _pad(blocks: Sequence[FloatArray], longest: int, device: torch.device) -> Tensor:
    """(S, B, width) float32, zero where a stream has fewer rows."""
    padded = np.zeros((len(blocks), longest, blocks[0].shape[1]), dtype=np.float32)
    for position, block in enumerate(blocks):
        padded[position, : len(block)] = block
    return torch.from_numpy(padded).to(device)


def _one(served: Predictive, position: int, rows: int) -> Predictive:
    var = served.var[position, :rows] if served.var.numel() else served.var
    return Predictive(served.mean[position, :rows], var)


def _lags(spec: ModelSpec, z: Tensor, position: int, rows: int) -> FloatArray:
    return np.asarray(z[position, :rows, len(spec.features) :].numpy(force=True), dtype=np.float64)


def _scalar_or_list(values: list[Any]) -> Any:
    """One output is a number; several are a list. Works on rows of outputs and on (low, high) pairs of them."""
    if values and isinstance(values[0], list):
        low, high = values
        if len(low) == 1:
            return [low[0], high[0]]
        return [list(pair) for pair in zip(low, high, strict=True)]
    return values[0] if len(values) == 1 else values


def _label_std(power: float, spec: ModelSpec, mean: Tensor, std: Tensor) -> Tensor:
    """Standard deviation in label units; through a power transform by Gauss-Hermite quadrature."""
    scale = torch.tensor(spec.target.std, dtype=std.dtype)
    if power == 1.0:
        return std * scale
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    points = from_scale(spec.target, mean[..., None, :] + std[..., None, :] * torch.from_numpy(nodes)[:, None])
    w = torch.from_numpy(weights / weights.sum())[:, None]
    centre = (w * points).sum(-2, keepdim=True)
    return (w * (points - centre).square()).sum(-2).sqrt()


def _decisions(given: Sequence[Decision | None]) -> Decisions | None:
    """Logged decisions as columns; None where the detector is to decide. A group is of one kind."""
    logged = [decision for decision in given if decision is not None]
    if len(logged) != len(given) or not logged:
        return None
    return Decisions(
        np.array([decision.kind == "drift" for decision in logged]),
        np.array([decision.kind == "warning" for decision in logged]),
        np.array([decision.rows_since_change for decision in logged], dtype=np.int64),
        np.array([decision.statistic for decision in logged]),
        np.array([decision.threshold for decision in logged]),
    )


def _decision(decisions: Decisions, position: int) -> Decision:
    kind = "drift" if decisions.drift[position] else "warning" if decisions.warning[position] else None
    return Decision(
        kind,
        int(decisions.rows_since_change[position]),
        float(decisions.statistic[position]),
        float(decisions.threshold[position]),
    )


def describe(spec: ModelSpec) -> dict[str, Any]:
    """A spec as plain values, for listings."""
    return asdict(spec)
