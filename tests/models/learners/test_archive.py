"""Regimes that a stream has left: kept in closed form, recalled by the rows of a new one."""

import torch

from models import adaptation
from models.kalman import Posterior, condition
from models.learners.archive import ALL, NONE, Natural, lead
from models.memory import Rows
from models.plan import Plan
from models.types import Expert, Feature, ModelSpec, Target, Tensors

WIDTH = 3
PRIOR = Posterior(torch.zeros(WIDTH, 1), 100.0 * torch.eye(WIDTH))


def spec_of(segments: int) -> ModelSpec:
    """A linear head that remembers so many regimes."""
    hyper = {"hidden": (), "skip": True, "archive_segments": segments}
    features = tuple(Feature(name) for name in ("a", "b"))
    return ModelSpec("r", "regression", features, Target(), (Expert("head", "bayes_head", hyper),), standardiser_rows=0)


def conditioned(post: Posterior, phi: torch.Tensor, y: torch.Tensor) -> Posterior:
    """One stream's posterior after rows (n, d), labels (n,)."""
    W, P = post.W.double().expand(1, 1, -1, -1), post.P.double().expand(1, 1, -1, -1)
    moved, _ = condition(Posterior(W, P), phi.double()[None, None], y.double()[None, None, :, None])
    return Posterior(moved.W[0, 0], moved.P[0, 0])


def log_joint(post: Posterior, phi: torch.Tensor, y: torch.Tensor, noise: float) -> torch.Tensor:
    """Log density of the rows' labels, whose noise has variance ``noise``."""
    phi, y = phi.double(), y.double()
    covariance = noise * (torch.eye(len(y), dtype=torch.float64) + phi @ post.P.double() @ phi.T)
    normal = torch.distributions.MultivariateNormal((phi @ post.W.double())[:, 0], covariance)
    return normal.log_prob(y)  # type: ignore[no-any-return]


def test_the_lead_of_a_segment_is_its_bayes_factor_against_the_prior() -> None:
    """From the two posteriors alone, without the rows."""
    generator = torch.Generator().manual_seed(0)
    old, rows = torch.randn(40, WIDTH, generator=generator), torch.randn(4, WIDTH, generator=generator)
    truth = torch.tensor([1.0, -2.0, 0.5])
    past = conditioned(PRIOR, old, old @ truth)
    y = rows @ truth + 0.1 * torch.randn(4, generator=generator)
    grown = conditioned(PRIOR, rows, y)
    noise = 0.01
    found = lead(
        Natural(*(value[None, None] for value in Natural.of(*past))),
        Natural.of(*PRIOR),
        Natural(*(value[None] for value in Natural.of(*grown))),
        torch.full((1, 1), noise),
    )
    wanted = log_joint(past, rows, y, noise) - log_joint(PRIOR, rows, y, noise)
    torch.testing.assert_close(found[0, 0], wanted, rtol=1e-3, atol=0.01)


def test_rows_are_taken_out_of_a_posterior_without_the_rows() -> None:
    """What a challenger has learned from the prior, subtracted, leaves the posterior of the rows before."""
    generator = torch.Generator().manual_seed(1)
    before, after = torch.randn(30, WIDTH, generator=generator), torch.randn(5, WIDTH, generator=generator)
    y = torch.randn(35, generator=generator)
    clean = conditioned(PRIOR, before, y[:30])
    live, challenger = conditioned(clean, after, y[30:]), conditioned(PRIOR, after, y[30:])
    (L, h), gained, prior = Natural.of(*live), Natural.of(*challenger), Natural.of(*PRIOR)
    left = Natural(L - (gained.L - prior.L), h - (gained.h - prior.h)).posterior()
    torch.testing.assert_close(left.W, clean.W, rtol=1e-3, atol=1e-4)


def moved(segments: int, regimes: list[int], rows: int = 60) -> tuple[list[Tensors], torch.Tensor]:
    """States after every row, and squared errors (visits, rows), of a stream that moves between regimes."""
    generator = torch.Generator().manual_seed(2)
    truths = torch.tensor([[1.0, 1.0], [-1.0, 2.0], [2.0, -1.5]])
    plan = Plan.of(spec_of(segments))
    meta = {f"head.{name}": value for name, value in plan.learners["head"].meta_init(generator).items()}
    meta["head.prior_log_var"] = torch.full_like(meta["head.prior_log_var"], 5.0)
    meta["head.log_noise"] = torch.full_like(meta["head.log_noise"], -4.6)
    state, states, errors = adaptation.init(plan, meta, 1), [], []
    for regime in regimes:
        x = torch.randn(rows, 2, generator=generator)
        y = x @ truths[regime] + 0.1 * torch.randn(rows, generator=generator)
        for row in range(rows):
            one = Rows(x[row].view(1, 1, 2), y[row].view(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))
            state, seen = adaptation.step(plan, meta, state, one)
            states.append(state)
            errors.append((seen.served.mean - y[row]).square().sum())
    return states, torch.stack(errors).view(len(regimes), rows)


def test_a_regime_that_returns_is_recalled_and_one_that_is_new_is_not() -> None:
    """The first of three returns fourth: within four rows all members but one go on from what it was."""
    states, errors = moved(4, [0, 1, 2, 0])
    assert states[2 * 60 + 10]["head.believers"].tolist() == [0]
    assert states[3 * 60 + 4]["head.believers"].tolist() == [ALL]
    _, fresh = moved(0, [0, 1, 2, 0])
    torch.testing.assert_close(errors[2], fresh[2])  # nothing that it remembers looks like the third
    assert float(errors[3, 2:8].sum()) < 0.5 * float(fresh[3, 2:8].sum())


def test_memory_is_bounded_and_the_longest_unused_segment_goes() -> None:
    """Two segments for three regimes; the state never grows."""
    states, _ = moved(2, [0, 1, 2, 1])
    assert all(state.keys() == states[0].keys() for state in states)
    assert states[-1]["head.past_L"].shape == states[0]["head.past_L"].shape
    assert states[-1]["head.past_used"].tolist() == [[3, 2]]  # the third regime took the first one's place


def test_a_reset_forgets_every_regime() -> None:
    """Back to the meta-initialization."""
    states, _ = moved(2, [0, 1])
    plan = Plan.of(spec_of(2))
    meta = {f"head.{name}": value for name, value in plan.learners["head"].meta_init(torch.Generator()).items()}
    fresh = adaptation.reset(plan, meta, states[-1])
    assert states[-1]["head.past_used"].sum() > 0
    assert not fresh["head.past_used"].any()
    assert fresh["head.recalled"].tolist() == [NONE]
