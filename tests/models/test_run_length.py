"""The run-length posterior as it is served, against brute force over all segmentations."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models import StreamConfig, adaptation
from models.errors import InputError
from models.learners.bayes_head import BayesHead
from models.memory import Rows
from models.plan import Plan
from models.stream_config import configure
from models.types import DetectorChoice, Expert, Feature, ModelSpec, Target, Tensors

STEPS, HAZARD = 7, 0.15
EXPERT = Expert("head", "bayes_head", {"hidden": (8, 4), "noise_rate": 0.0})
SPEC = ModelSpec(
    "r",
    "regression",
    (Feature("a"), Feature("b")),
    Target(),
    (EXPERT,),
    detector=DetectorChoice("run_length", {"hypotheses": STEPS + 1, "hazard": HAZARD}),
    standardiser_rows=0,
)
CLASSES = replace(SPEC, task="classification", target=Target("y", classes=("x", "y", "z")))
GRADIENT = Expert("steps", "maml", {"hidden": (8,), "steps": 2})


def learned(spec: ModelSpec) -> tuple[Plan, BayesHead, Tensors]:
    """A plan, its head and tensors that are not at their start, in float64."""
    plan = Plan.of(spec)
    head = plan.learners["head"]
    assert isinstance(head, BayesHead)
    generator = torch.Generator().manual_seed(0)
    meta = {name: tensor.double() for name, tensor in head.meta_init(generator).items()}
    for name in ("prior_mean", "prior_log_var", "log_noise"):
        if name in meta:
            meta[name] = meta[name] + 0.5 * torch.randn(meta[name].shape, generator=generator).double()
    return plan, head, meta


def double(tensors: Tensors) -> Tensors:
    """Every floating-point tensor in float64."""
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def rows(spec: ModelSpec, steps: int, jump: int) -> tuple[Tensor, Tensor]:
    """Inputs (steps, 2) and targets of one stream whose function changes at a step."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(steps, 2, generator=generator).double()
    slope = torch.where(torch.arange(steps) < jump, 2.0, -2.0).double()
    value = slope * x[:, 0]
    return x, value if spec.task == "regression" else (value > 0).double() + (value > 1.5).double()


def segment_likelihood(head: BayesHead, meta: Tensors, x: Tensor, y: Tensor) -> float:
    """Log-likelihood of the rows of one regime, from linear regression's closed form."""
    phi = head.features(meta, x)
    precision = torch.diag((-meta["prior_log_var"]).exp())
    total = 0.0
    for row in range(len(x)):
        P = torch.linalg.inv(precision + phi[:row].T @ phi[:row])
        one_hot = 2.0 * (y[:row, None] == torch.arange(3)) - 1.0
        target = y[:row, None] if head.task == "regression" else one_hot.double()
        m = phi[row] @ P @ (precision @ meta["prior_mean"] + phi[:row].T @ target)
        v = phi[row] @ P @ phi[row]
        if head.task == "regression":
            normal = torch.distributions.Normal(m[0], (meta["log_noise"].exp()[0] * (1 + v)).sqrt())
            total += float(normal.log_prob(y[row]))
        else:
            logits = meta["log_scale"].exp() * m / (1 + meta["log_spread"].exp() * v).sqrt()
            total += float(torch.log_softmax(logits, dim=-1)[int(y[row])])
    return total


@pytest.mark.parametrize("spec", [SPEC, CLASSES], ids=["regression", "classification"])
def test_what_is_served_equals_brute_force_over_all_segmentations(spec: ModelSpec) -> None:
    """Seven rows have 64 segmentations; the mixture's sequence likelihood is their sum, to nine places."""
    plan, head, meta = learned(spec)
    x, y = rows(spec, STEPS, 4)
    tensors = {f"head.{name}": value for name, value in meta.items()}
    state, served = double(adaptation.init(plan, tensors, 1)), 0.0
    state["weights"] = torch.log_softmax(state["weights"], dim=1)  # they sum to one in float64 too
    for row in range(STEPS):
        batch = Rows(x[None, row : row + 1], y.view(1, -1, 1)[:, row : row + 1], torch.ones(1, 1, dtype=torch.bool))
        predicted = adaptation.predict(plan, tensors, state, batch.z).served
        state, seen = adaptation.step(plan, tensors, state, batch)
        torch.testing.assert_close(predicted.mean, seen.served.mean)
        served -= float(seen.nll[0, 0])
    total = -math.inf
    for cuts in itertools.product((False, True), repeat=STEPS - 1):
        starts = [0, *(row + 1 for row, cut in enumerate(cuts) if cut), STEPS]
        log_p = sum(math.log(HAZARD if cut else 1 - HAZARD) for cut in cuts)
        log_p += sum(segment_likelihood(head, meta, x[a:b], y[a:b]) for a, b in itertools.pairwise(starts))
        total = float(np.logaddexp(total, log_p))
    assert served == pytest.approx(total, abs=1e-9)


def test_an_alarm_names_the_row_of_the_change() -> None:
    """A jump at row 40 is told within a few rows, once, and the estimate is that row."""
    spec = replace(SPEC, detector=DetectorChoice("run_length"))
    plan, _, meta = learned(spec)
    meta["prior_mean"] = torch.zeros_like(meta["prior_mean"])
    meta["prior_log_var"] = torch.full_like(meta["prior_log_var"], 2.0)
    meta["log_noise"] = torch.full_like(meta["log_noise"], -4.0)
    tensors = {f"head.{name}": value for name, value in meta.items()}
    x, y = rows(spec, 60, 40)
    state, told = double(adaptation.init(plan, tensors, 1)), []
    for row in range(60):
        batch = Rows(x[None, row : row + 1], y.view(1, -1, 1)[:, row : row + 1], torch.ones(1, 1, dtype=torch.bool))
        state, seen = adaptation.step(plan, tensors, state, batch)
        if seen.decisions.drift[0]:
            told.append((row, row + 1 - int(seen.decisions.rows_since_change[0]), int(seen.rows_used[0])))
    assert len(told) == 1
    at, change_row, used = told[0]
    assert 40 <= at <= 44
    assert change_row == 40
    assert used == at + 1 - 40


def test_hypotheses_forget_nothing_whatever_the_model_says() -> None:
    """The head's own forgetting times give way to conjugate updates: after any rows, one start's posterior is exact."""
    spec = replace(SPEC, experts=(replace(EXPERT, hyper_parameters={"hidden": (8, 4), "tau_rows": (20.0,)}),))
    plan, head, meta = learned(spec)
    x, y = rows(spec, STEPS, STEPS)
    tensors = {f"head.{name}": value for name, value in meta.items()}
    state = double(adaptation.init(plan, tensors, 1))
    for row in range(STEPS):
        batch = Rows(x[None, row : row + 1], y.view(1, -1, 1)[:, row : row + 1], torch.ones(1, 1, dtype=torch.bool))
        state, _ = adaptation.step(plan, tensors, state, batch)
    oldest = int(state["detector.age"][0].argmax())
    phi = head.features(meta, x)
    exact = torch.linalg.inv(torch.diag((-meta["prior_log_var"]).exp()) + phi.T @ phi)
    torch.testing.assert_close(state["head.P"][0, oldest], exact, rtol=1e-9, atol=1e-9)


def test_models_that_cannot_hold_hypotheses_refuse_the_detector() -> None:
    """A gradient learner's stream config is told what is wrong, by the field's name."""
    for experts in ((GRADIENT,), (EXPERT, GRADIENT)):
        with pytest.raises(InputError, match="one expert") as caught:
            configure(replace(SPEC, experts=experts, detector=DetectorChoice()), StreamConfig(detector="run_length"))
        assert caught.value.loc == ("config", "detector")


def test_streams_of_a_bayesian_head_may_choose_it() -> None:
    """A stream's config selects it, with its defaults."""
    spec = configure(replace(SPEC, detector=DetectorChoice()), StreamConfig(detector="run_length"))
    assert Plan.of(spec).members == 3
    assert not Plan.of(spec).keeps_window
