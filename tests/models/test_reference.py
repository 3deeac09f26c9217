"""What a suspicion is tested against."""

import torch

from models import adaptation, reference
from models.memory import Rows
from models.plan import Plan
from models.types import Expert, Feature, ModelSpec, Target, Tensors

SPEC = ModelSpec(
    "r",
    "regression",
    (Feature("a"),),
    Target(),
    (Expert("head", "bayes_head", {"hidden": (), "tau_rows": (20.0, 1e9)}),),
    standardiser_rows=0,
)


def test_while_suspected_weights_move_by_bayes_rule_alone() -> None:
    """No share of the weight is lent to everybody: evidence against a member stays, however long the suspicion."""
    believed, likely = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[-3.0, -1.0]])
    doubted, rows = torch.tensor([False]), torch.tensor([2])
    moved = reference.advance(believed, likely, torch.zeros(1, 2), doubted, rows)
    torch.testing.assert_close(moved, torch.log_softmax(believed + likely, dim=1))
    both = reference.log_likelihood(believed, likely) + reference.log_likelihood(moved, likely)
    torch.testing.assert_close(both, torch.logsumexp(believed + 2 * likely, dim=1))


def test_without_suspicion_the_best_member_is_the_reference() -> None:
    """A weight that the fixed share has lent counts for nothing, near equals for their share."""
    weights = torch.tensor([[0.49, 0.5, 0.01]]).log()
    found = reference.init_reference(weights).exp()[0]
    assert float(found[2]) < 1e-10
    assert float(found[0] / found[1]) > 0.8
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


def test_a_stream_without_rows_keeps_its_reference() -> None:
    """Bit for bit, beside one that has rows."""
    before, likely = torch.tensor([[0.3, 0.7], [0.3, 0.7]]).log(), torch.tensor([[0.0, 0.0], [-1.0, -2.0]])
    weights = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    moved = reference.advance(before, likely, weights, torch.tensor([True, True]), torch.tensor([0, 1]))
    assert torch.equal(moved[0], before[0])
    assert not torch.equal(moved[1], before[1])


def _alarmed_at(noise: torch.Tensor, jump: float) -> list[int]:
    """Rows with an alarm, on 300 rows of 2x after which x's slope falls by ``jump``."""
    generator = torch.Generator().manual_seed(3)
    plan = Plan.of(SPEC)
    meta: Tensors = {f"head.{name}": value for name, value in plan.learners["head"].meta_init(generator).items()}
    state, alarms = adaptation.init(plan, meta, 1), []
    x = torch.randn(320, generator=generator)
    for row in range(320):
        slope = 2.0 - (jump if row >= 300 else 0.0)
        y = (slope * x[row] + 0.1 * noise[row]).view(1, 1, 1)
        rows = Rows(x[row].view(1, 1, 1), y, torch.ones(1, 1, dtype=torch.bool))
        state, seen = adaptation.step(plan, meta, state, rows)
        if bool(seen.decisions.drift[0]):
            alarms.append(row)
    return alarms


def test_a_change_is_alarmed_though_a_fast_member_follows_it() -> None:
    """A member that forgets in 20 rows takes the committee over before the challenger is eight nats ahead of it."""
    noise = torch.randn(320, generator=torch.Generator().manual_seed(4))
    alarms = _alarmed_at(noise, 1.0)
    assert alarms
    assert 300 <= alarms[0] < 310


def test_gross_outliers_raise_no_alarm() -> None:
    """One label in twenty, 40 standard deviations away: once the stream has shown some, more are no news."""
    noise = torch.randn(320, generator=torch.Generator().manual_seed(4))
    noise[19::20] += 40.0
    assert not _alarmed_at(noise, 0.0)
