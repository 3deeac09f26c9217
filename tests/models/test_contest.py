"""What baselines are given, and what their answers are made into."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from models import Report, Run
from models.contest import course_of, finish_classes, finish_numbers, plain_target
from models.targets import from_scale, to_scale
from models.types import Target
from tests.models.examples import small_engine, small_table

SKEWED = Target("y", mean=(2.0,), std=(0.5,), power=0.0, low=(0.0,), high=(30.0,))


def test_plain_scale_is_linear_and_agrees_in_the_middle() -> None:
    """No transform is left; the middle and the standard deviation around it are those of the model's scale."""
    plain = plain_target(SKEWED)
    np.testing.assert_allclose(from_scale(plain, np.zeros(1)), from_scale(SKEWED, np.zeros(1)))
    ends = from_scale(SKEWED, np.array([[-1.0], [1.0]]))[:, 0]
    labels = np.array([[1.0], [2.0], [4.0]])
    scaled = to_scale(plain, labels)[:, 0]
    np.testing.assert_allclose(np.diff(scaled), np.diff(labels[:, 0]) * 2 / (ends[1] - ends[0]))


def test_numbers_are_scored_in_label_units(tmp_path: Path) -> None:
    """Error, interval and likelihood against SciPy's normal; answers beyond the training labels are cut."""
    table = small_table(tmp_path, 60)
    engine = small_engine()
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    nothing = Run("nothing", *np.full((3, 60), np.nan))
    report = Report(nothing, nothing, np.zeros((60, 0)), np.ones(60, dtype=np.bool_), table, 1, 0)
    target = Target("y", mean=(0.5,), std=(2.0,), low=(-1.0,), high=(1.0,))
    course = course_of(engine.model.spec, report, inputs, targets, plain=True)
    course = course._replace(spec=replace(course.spec, target=target), y=to_scale(target, targets))
    mean, std = np.linspace(-2, 2, 60), np.linspace(0.5, 1.5, 60)
    run = finish_numbers(course, "normal", mean, std, 1.0)
    answers, spread, truth = 0.5 + 2 * mean, 2 * std, targets[:, 0]
    np.testing.assert_allclose(run.score, np.abs(np.clip(answers, -1, 1) - truth))
    np.testing.assert_allclose(run.loss, -stats.norm.logpdf(truth, answers, spread))
    assert run.inside is not None
    inner = np.abs(answers) < 1  # no end of the interval is cut there
    held = np.abs(truth - answers) <= stats.norm.ppf(0.95) * spread
    np.testing.assert_array_equal(run.inside[inner], held[inner])
    silent = finish_numbers(course, "silent", mean, None, 1.0)
    assert np.isnan(silent.loss).all()
    assert (silent.inside, silent.width) == (None, None)


def test_classes_are_scored_by_the_likeliest(tmp_path: Path) -> None:
    """With its probability as the confidence, and the log loss of the true class."""
    table = small_table(tmp_path, 40, task="classification")
    engine = small_engine("classification")
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    nothing = Run("nothing", *np.full((3, 40), np.nan))
    report = Report(nothing, nothing, np.zeros((40, 0)), np.ones(40, dtype=np.bool_), table, 1, 0)
    course = course_of(engine.model.spec, report, inputs, targets)
    yes = np.linspace(0.01, 0.99, 40)
    run = finish_classes(course, "made up", np.stack([1 - yes, yes], axis=1), 1.0)
    truth = targets[:, 0]
    np.testing.assert_array_equal(run.score, (yes > 0.5) == (truth == 1))
    np.testing.assert_allclose(run.loss, -np.log(np.where(truth == 1, yes, 1 - yes)))
    assert run.confidence is not None
    assert run.confidence == pytest.approx(np.maximum(yes, 1 - yes))
