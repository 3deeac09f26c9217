"""How much of what is served is the challenger's and a fresh start's."""

import math
from dataclasses import replace

import pytest
import torch

from models import adaptation, suspicion
from models.memory import Rows
from models.plan import Plan
from models.types import DetectorChoice, Expert, Feature, ModelSpec, Target, TaskKind, Tensors

SPEC = ModelSpec(
    "r",
    "regression",
    (Feature("a"), Feature("b")),
    Target(),
    (Expert("head", "bayes_head", {"hidden": (8, 4)}),),
    standardiser_rows=0,
)
H0 = SPEC.challenger_share


def state_of(odds: float, hazard: float, changes: float = 0.0, rows: int = 0) -> Tensors:
    """Two equal live members, and how suspicious their stream is."""
    found = {"weights": torch.full((1, 2), -math.log(2.0)), "rows_seen": torch.tensor([rows])}
    return found | {"odds": torch.tensor([odds]), "hazard": torch.tensor([hazard]), "changes": torch.tensor([changes])}


def test_nothing_suspected_serves_the_models_share() -> None:
    """(1-h₀)/M each and h₀ for the challenger."""
    weights = suspicion.full_weights(SPEC, state_of(0.0, 0.0)).exp()
    torch.testing.assert_close(weights, torch.tensor([[(1 - H0) / 2, (1 - H0) / 2, H0]]))


def test_suspicion_moves_the_odds_by_bayes_rule() -> None:
    """Evidence of c nats makes the challenger's odds e^c times the model's; a fresh start takes the hazard of all."""
    weights = suspicion.full_weights(SPEC, state_of(4.0, 0.03)).exp()[0]
    odds = H0 / (1 - H0) * math.exp(4.0)
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-5)
    assert float(weights[2] / (weights[0] + weights[1])) == pytest.approx(odds, rel=1e-4)
    assert float(weights[3]) == pytest.approx(0.03, rel=1e-5)


def test_the_rate_of_changes_is_a_beta_posterior_mean() -> None:
    """The model's share counts for ten rows; the gain is that of the log-odds, and never below zero."""
    often, never = state_of(0.0, 0.0, changes=20.0, rows=90), state_of(0.0, 0.0, rows=990)
    rate = (10 * H0 + 20) / 100
    assert float(suspicion.change_rate(SPEC, often)) == pytest.approx(rate, rel=1e-5)
    gain = math.log(rate / (1 - rate)) - math.log(H0 / (1 - H0))
    assert float(suspicion.rate_gain(SPEC, often)) == pytest.approx(gain, rel=1e-4)
    assert float(suspicion.change_rate(SPEC, never)) == pytest.approx(10 * H0 / 1000, rel=1e-5)
    assert float(suspicion.rate_gain(SPEC, never)) == 0.0


def test_the_probability_of_a_change_is_the_posterior_of_the_fresh_start() -> None:
    """By Bayes' rule over live members, challenger and, where it is apart, the fresh start."""
    full = torch.tensor([[0.5, 0.2, 0.3]]).log()
    joint, fresh = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-0.5]])
    parts = [0.5 * math.exp(-1), 0.2 * math.exp(-2), 0.3 * math.exp(-0.5)]
    apart = suspicion.change_probability(full, joint, fresh, torch.tensor([0.3]))
    assert float(apart) == pytest.approx(parts[2] / sum(parts), rel=1e-5)
    two = torch.tensor([[0.9, 0.1]]).log()
    same = suspicion.change_probability(two, joint, None, torch.tensor([0.0]))
    assert float(same) == pytest.approx(0.1 * math.exp(-2) / (0.9 * math.exp(-1) + 0.1 * math.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_first_rows_are_served_the_frozen_start_in_part(task: TaskKind) -> None:
    """0.6 after one row, 0.4 after two, nothing before the first and after fifty; both calls serve the same."""
    target = Target("y", classes=("no", "yes")) if task == "classification" else Target("y")
    spec = replace(SPEC, task=task, target=target, cold_share=0.6)
    plan, plain = Plan.of(spec), Plan.of(replace(spec, cold_share=0.0))
    meta = {f"head.{k}": v for k, v in plan.learners["head"].meta_init(torch.Generator().manual_seed(0)).items()}
    state, generator = adaptation.init(plan, meta, 2), torch.Generator().manual_seed(1)
    for row in range(52):
        z = torch.randn(2, 1, 2, generator=generator)
        y = (z[..., :1] > 0).float() if task == "classification" else z[..., :1]
        served = adaptation.predict(plan, meta, state, z).served
        alone = adaptation.predict(plain, meta, state, z).served
        start, _, _ = adaptation.predict_initial(plan, meta, z)
        share = 0.0 if row == 0 or row >= 50 else 1.2 / (1 + row)
        if task == "classification":
            expected = torch.log((1 - share) * alone.mean.exp() + share * start.mean.exp())
        else:
            expected = (1 - share) * alone.mean + share * start.mean
        torch.testing.assert_close(served.mean, expected, atol=1e-5, rtol=1e-4)
        state, seen = adaptation.step(plan, meta, state, Rows(z, y, torch.ones(2, 1) > 0))
        torch.testing.assert_close(served.mean, seen.served.mean)
        assert bool(seen.nll.isfinite().all())


def test_detectors_without_a_challenger_leave_the_share_alone() -> None:
    """Page-Hinkley's streams serve the model's share for ever."""
    spec = replace(SPEC, detector=DetectorChoice("page_hinkley"))
    plan = Plan.of(spec)
    meta = {f"head.{k}": v for k, v in plan.learners["head"].meta_init(torch.Generator().manual_seed(0)).items()}
    state, generator = adaptation.init(plan, meta, 2), torch.Generator().manual_seed(1)
    for batch in range(20):
        z = torch.randn(2, 3, 2, generator=generator)
        rows = Rows(z, z[..., :1] + 5.0 * (batch > 10), torch.ones(2, 3, dtype=torch.bool))
        state, _ = adaptation.step(plan, meta, state, rows)
    assert not state["odds"].any()
    assert not state["hazard"].any()
    assert not state["changes"].any()


def test_what_is_predicted_under_suspicion_is_what_is_scored() -> None:
    """``predict`` and the step that follows serve the same mixture, the fresh start included."""
    plan = Plan.of(SPEC)
    meta = {f"head.{k}": v for k, v in plan.learners["head"].meta_init(torch.Generator().manual_seed(0)).items()}
    state, generator, suspected = adaptation.init(plan, meta, 4), torch.Generator().manual_seed(1), 0
    for batch in range(60):
        z = torch.randn(4, 1, 2, generator=generator)
        jump = 2.0 * (batch > 30)
        rows = Rows(z, z[..., :1] + jump + 0.3 * torch.randn(4, 1, 1, generator=generator), torch.ones(4, 1) > 0)
        predicted = adaptation.predict(plan, meta, state, z).served
        suspected += int((state["hazard"] > 0).sum())
        state, seen = adaptation.step(plan, meta, state, rows)
        torch.testing.assert_close(predicted.mean, seen.served.mean)
        torch.testing.assert_close(predicted.var, seen.served.var)
    assert suspected > 0
    assert float(state["changes"].min()) > 0.0
