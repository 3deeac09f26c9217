"""What an adapted stream has to beat: the last known label, and online SGD that nobody meta-trained.

Both run test-then-train on the same rows in the same batches with the same label delay as the model. Further rivals:
``window`` (the last rows alone, solved exactly) and ``rivers`` (River's models).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, huber_loss

from models.contest import Course, course_of, finish_classes, finish_numbers
from models.features import input_width
from models.lockstep import Event, Progress, run
from models.networks import Mlp
from models.params import flatten
from models.prequential import Report
from models.scores import Run, score_rows
from models.targets import from_scale
from models.tasks.table import IntArray, Table
from models.types import FloatArray, ModelSpec, Tensors

HIDDEN = (64, 32)
"""Hidden widths of online SGD where the model's experts have no network."""
LEARNING_RATE = 3e-3
"""Adam's, the same for every data set: searching it on the scored rows would flatter the baseline."""
BETAS = (0.9, 0.999)
GRADIENT_NORM_MAX = 1.0
"""A stream's gradient is scaled down to this norm, so that no single row throws its network."""
HUBER_DELTA = 3.0
"""Errors beyond this many standard deviations of the training labels pull linearly (regression)."""
OUTPUT_CLIP = 10.0
"""Regression outputs are cut here, in standard deviations of the training labels."""
NOISE_RATE = 0.01
"""Rate, per batch, at which a stream's squared error is tracked: the variance that it states (regression)."""


def last_value(
    spec: ModelSpec,
    table: Table,
    targets: FloatArray,
    *,
    batch: int = 1,
    delay: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Predict the last label known of the row's own stream.

    Before a stream's first label is known: the middle of the training labels, the first class, or none
    where classes are open.

    Args:
        spec: The model whose training labels are meant.
        table: The rows.
        targets: (rows, 1) encoded targets.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is known.
        progress: Told the number of rows learned so far.
    """
    middle = -1.0 if spec.target.ways else 0.0  # no class, where there is none yet
    if spec.task == "regression":
        middle = float(from_scale(spec.target, np.zeros(spec.outputs))[0])
    contender = _LastValue(targets[:, 0], middle)
    cpu_seconds = run(contender, table, batch=batch, delay=delay, progress=progress)
    truth, nothing = targets[:, 0], np.full(table.rows, math.nan)
    score = score_rows(table.task, contender.predicted, truth)
    return Run("last value", score, np.square(contender.predicted - truth), nothing, cpu_seconds)


def online_sgd(
    spec: ModelSpec,
    report: Report,
    inputs: FloatArray,
    targets: FloatArray,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Adam from a random start, one step a batch, one network a stream: adaptation without meta-learning.

    The network has the widths of the model's body, its inputs are standardised by the same statistics and hold the
    same lag values, and its targets are in the same scale.

    Args:
        spec: The model whose inputs and shape are taken over.
        report: The model's own run: table, batches, delay and lag values.
        inputs: (rows, D) encoded inputs.
        targets: (rows, O) encoded targets.
        seed: Of the random start, which all streams share.
        progress: Told the number of rows learned so far.
    """
    course = course_of(spec, report, inputs, targets)
    contender = _OnlineSgd(course, seed)
    cpu_seconds = run(contender, report.table, batch=report.batch, delay=report.delay, progress=progress)
    if spec.task == "regression":
        return finish_numbers(course, "online SGD", contender.answers[:, 0], contender.std, cpu_seconds)
    return finish_classes(course, "online SGD", contender.answers, cpu_seconds)


class _LastValue:
    def __init__(self, truth: FloatArray, middle: float) -> None:
        self.truth = truth
        self.middle = middle
        self.predicted = np.zeros(len(truth))
        self.known: dict[int, float] = {}

    def open(self, stream: int) -> int:
        self.known[stream] = self.middle
        return stream

    def close(self, handle: int) -> None:
        del self.known[handle]

    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        for handle, rows in items:
            self.predicted[rows] = self.known[handle]

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        for handle, event in items:
            if event.predict:
                self.predicted[event.rows] = self.known[handle]
            self.known[handle] = float(self.truth[event.rows[-1]])


class _OnlineSgd:
    """One network a stream, each a vector of weights; Adam moves several in one call."""

    def __init__(self, course: Course, seed: int) -> None:
        spec = course.spec
        hidden = next((e.hyper_parameters["hidden"] for e in spec.experts if e.hyper_parameters.get("hidden")), HIDDEN)
        self.task = spec.task
        self.network = Mlp((input_width(spec), *hidden, spec.outputs), activation="tanh")
        self.start, self.layout = flatten(self.network.init(torch.Generator().manual_seed(seed)))
        self.x = torch.from_numpy(course.x.astype(np.float32))
        self.y = torch.from_numpy(course.y.astype(np.float32))
        self.answers = np.zeros((len(course.x), spec.outputs))
        """(rows, O) means in the model's scale, or (rows, C) probabilities."""
        self.std = np.ones(len(course.x))
        self.streams: dict[int, Tensors] = {}
        """Per stream: weights ``w``, Adam's moments ``m`` and ``v`` (N,), its ``steps``, the tracked ``variance``."""

    def open(self, stream: int) -> int:
        zeros = torch.zeros_like(self.start)
        self.streams[stream] = {"w": self.start, "m": zeros, "v": zeros} | {
            "steps": torch.zeros(()),
            "variance": torch.ones(()),
        }
        return stream

    def close(self, handle: int) -> None:
        del self.streams[handle]

    @torch.no_grad()
    def predict(self, items: Sequence[tuple[int, IntArray]]) -> None:
        for handle, rows in items:
            state = self.streams[handle]
            self._record(self._outputs(state["w"][None], self.x[rows][None])[0], rows, state["variance"])

    def learn(self, items: Sequence[tuple[int, Event]]) -> None:
        for size in sorted({len(event.rows) for _, event in items}):
            self._learn([(handle, event) for handle, event in items if len(event.rows) == size])

    def _learn(self, items: Sequence[tuple[int, Event]]) -> None:
        states = [self.streams[handle] for handle, _ in items]
        rows = np.stack([event.rows for _, event in items])
        x, y = self.x[rows], self.y[rows]  # (S, B, F), (S, B, O)
        stacked = {key: torch.stack([state[key] for state in states]) for key in states[0]}
        weights = stacked["w"].requires_grad_()
        outputs = self._outputs(weights, x)
        if self.task == "regression":
            loss = 0.5 * huber_loss(outputs, y, reduction="sum", delta=HUBER_DELTA) / rows.shape[1]
        else:
            labels = y[..., 0].flatten().long()
            loss = cross_entropy(outputs.flatten(0, 1), labels, reduction="sum") / rows.shape[1]
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for (_, event), output, state in zip(items, outputs, states, strict=True):
                if event.predict:
                    self._record(output, event.rows, state["variance"])
            if self.task == "regression":
                error = (outputs - y).square().mean((1, 2)).clamp(max=OUTPUT_CLIP**2)
                stacked["variance"] = torch.lerp(stacked["variance"], error, NOISE_RATE)
            moved = stacked | _adam(stacked, gradient)
        for position, (handle, _) in enumerate(items):
            self.streams[handle] = {key: value[position] for key, value in moved.items()}

    def _outputs(self, weights: Tensor, x: Tensor) -> Tensor:
        parts = torch.split(weights, [shape.numel() for shape in self.layout.shapes], dim=1)
        named = {
            name: part.reshape(-1, *shape)
            for name, shape, part in zip(self.layout.names, self.layout.shapes, parts, strict=True)
        }
        outputs = self.network.apply(named, x)
        return outputs.clamp(-OUTPUT_CLIP, OUTPUT_CLIP) if self.task == "regression" else outputs

    def _record(self, outputs: Tensor, rows: IntArray, variance: Tensor) -> None:
        if self.task == "classification":
            self.answers[rows] = outputs.double().softmax(-1).numpy()
        else:
            self.answers[rows] = outputs.numpy()
            self.std[rows] = float(variance.sqrt())


def _adam(state: Tensors, gradient: Tensor) -> Tensors:
    """One step of Adam for S streams, each stream's gradient (S, N) scaled down to a norm first."""
    norm = gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
    gradient = gradient * (GRADIENT_NORM_MAX / norm).clamp_max(1.0)
    steps = state["steps"] + 1
    m = torch.lerp(gradient, state["m"], BETAS[0])
    v = torch.lerp(gradient.square(), state["v"], BETAS[1])
    warm_m, warm_v = (1 - beta ** steps[:, None] for beta in BETAS)
    w = state["w"].detach() - LEARNING_RATE * (m / warm_m) / ((v / warm_v).sqrt() + 1e-8)
    return {"w": w, "m": m, "v": v, "steps": steps}
