"""The same course for every baseline: the model's own inputs, lag values, batches and delays."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from models.calibration import LEVEL
from models.features import Scales, init_standardiser, network_inputs, standardise
from models.prequential import Report
from models.scores import Run, score_rows
from models.targets import from_scale, label_interval, log_slope, to_scale
from models.tasks.table import IntArray, Table
from models.types import FloatArray, ModelSpec, Target
from models.unnamed import PROBABILITY_FLOOR, certainty, likeliest, losses


class Course(NamedTuple):
    """What a baseline runs over.

    Attributes:
        spec: The model's, without its frozen start, and with the scale of the target that the baseline learns in.
        table: The rows.
        batch: Rows of a batch.
        delay: Rows of the file after which a label is known.
        x: (rows, F) the model's network inputs, standardised by the bundle's statistics, lag values included.
        y: (rows, O) targets in that scale, or (rows, 1) class indices.
        labels: (rows, O) targets in their own units, or class indices.
        named: (rows,) how many of the classes had been seen in a row's stream when it was predicted; None where they
            are fixed.
    """

    spec: ModelSpec
    table: Table
    batch: int
    delay: int
    x: FloatArray
    y: FloatArray
    labels: FloatArray
    named: IntArray | None = None


def course_of(
    spec: ModelSpec, report: Report, inputs: FloatArray, targets: FloatArray, *, plain: bool = False
) -> Course:
    """The course that a model has run.

    Args:
        spec: The model.
        report: Its own run: table, batches, delay and lag values.
        inputs: (rows, D) encoded inputs.
        targets: (rows, O) encoded targets.
        plain: Standardise targets without the model's transform, which suits its own learners: what is linear in the
            inputs is so in the label's units.
    """
    spec = replace(spec, start="", target=plain_target(spec.target) if plain else spec.target)
    raw = np.concatenate([standardise(Scales.of(spec.features), inputs), report.lags], axis=1).astype(np.float32)
    still = init_standardiser(spec, 1)
    x = network_inputs(spec, still["x_mean"], still["x_var"], torch.from_numpy(raw)[None])[0]  # (rows, F)
    y = to_scale(spec.target, targets) if spec.task == "regression" else targets
    return Course(spec, report.table, report.batch, report.delay, x.double().numpy(), y, targets, report.named)


def plain_target(target: Target) -> Target:
    """The linear scale that agrees with a target's own at its middle, and one standard deviation to both sides."""
    ones = np.ones(len(target.mean))
    low, middle, high = (from_scale(target, step * ones) for step in (-1.0, 0.0, 1.0))
    return replace(target, power=1.0, mean=tuple(middle.tolist()), std=tuple(((high - low) / 2).tolist()))


def finish_numbers(course: Course, name: str, mean: FloatArray, std: FloatArray | None, cpu_seconds: float) -> Run:
    """The run of a baseline that answered numbers.

    Args:
        course: What it ran over.
        name: What ran.
        mean: (rows,) answers in the course's scale; cut, in label units, to the range of the training labels.
        std: (rows,) standard deviations that it stated with them; ``None`` where it states none.
        cpu_seconds: CPU time over all rows.
    """
    target, truth = course.spec.target, course.labels[:, 0]
    predicted = from_scale(target, mean[:, None])[:, 0]
    if target.low:
        predicted = np.clip(predicted, target.low[0], target.high[0])
    error, loss = np.abs(predicted - truth), np.full(len(truth), math.nan)
    if std is None:
        return Run(name, error, np.square(error), loss, cpu_seconds)
    normal = 0.5 * np.square((course.y[:, 0] - mean) / std) + np.log(std) + 0.5 * math.log(2 * math.pi)
    loss = normal - log_slope(target, course.labels)[:, 0]
    low, high = label_interval(target, mean[:, None], std[:, None], LEVEL)
    return Run(name, error, np.square(error), loss, cpu_seconds).with_intervals(low[:, 0], high[:, 0], truth)


def finish_classes(course: Course, name: str, probabilities: FloatArray, cpu_seconds: float) -> Run:
    """The run of a baseline that answered class probabilities (rows, C).

    Where classes are open it is held to what the model is: an answer is a class that was seen in the stream before.
    """
    truth = course.labels[:, 0]
    if course.named is not None:
        log_p = np.log(np.maximum(probabilities, PROBABILITY_FLOOR))
        score = score_rows("classification", likeliest(log_p, course.named).astype(np.float64), truth)
        loss = losses(log_p, truth.astype(np.int64), course.named)
        return Run(name, score, np.square(1 - score), loss, cpu_seconds, confidence=certainty(log_p, course.named))
    chosen = probabilities[np.arange(len(truth)), truth.astype(np.int64)]
    score = score_rows("classification", probabilities.argmax(1).astype(np.float64), truth)
    loss = -np.log(np.clip(chosen, 1e-12, 1.0))
    return Run(name, score, np.square(1 - score), loss, cpu_seconds, confidence=probabilities.max(1))
