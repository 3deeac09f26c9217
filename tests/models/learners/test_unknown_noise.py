"""The head with unknown noise against the normal-inverse-gamma model written out, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.learners.bayes_head import BayesHead
from models.losses import gaussian_nll, student_t_nll
from models.types import Batch, Episode, Tensors

FAR = 1e15
"""A forgetting time at which nothing is forgotten."""


def head(tau_rows: float = FAR, rate: float = 0.0, outputs: int = 2, delay_rows: int = 0) -> BayesHead:
    """A small regression head whose noise is unknown."""
    return BayesHead(
        "regression", 3, outputs, hidden=(6, 4), tau_rows=(tau_rows,), challenger_tau_rows=FAR, noise="unknown",
        noise_rate=rate, delay_rows=delay_rows,
    )  # fmt: skip


def learned(learner: BayesHead) -> Tensors:
    """Learned tensors with a prior that is not at its start, in float64."""
    generator = torch.Generator().manual_seed(0)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(generator).items()}
    moved = ("prior_mean", "prior_log_var", "log_noise", "log_shape")
    return meta | {name: meta[name] + 0.5 * torch.randn(meta[name].shape, generator=generator) for name in moved}


def rows(count: int, outputs: int = 2, seed: int = 1) -> Batch:
    """Random rows of one stream."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, count, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(1, count, outputs, generator=generator, dtype=torch.float64)
    return Batch(x, y, torch.ones(1, count, dtype=torch.bool))


def after(learner: BayesHead, meta: Tensors, batch: Batch, cuts: tuple[int, ...]) -> Tensors:
    """The state that the rows lead to, cut into batches."""
    state, first = learner.init(meta, 1), 0
    for cut in cuts:
        piece = Batch(*(values[:, first : first + cut] for values in batch))
        state, _ = learner.update(meta, state, piece, piece)
        first += cut
    return state


def prior(meta: Tensors) -> tuple[float, Tensor]:
    """a₀ and b₀ (O,)."""
    shape = 1 + float(meta["log_shape"].exp())
    return shape, shape * meta["log_noise"].exp()


@pytest.mark.parametrize("cuts", [(1,) * 11, (4, 7), (11,)])
def test_posterior_is_the_normal_inverse_gamma_however_rows_are_cut(cuts: tuple[int, ...]) -> None:
    """It has a = a₀ + t/2 and b = b₀ + ½(YᵀY + W₀ᵀΛ₀W₀ - WᵀΛW), for each output."""
    learner = head()
    meta, batch = learned(learner), rows(11)
    state = after(learner, meta, batch, cuts)
    phi, y, start = learner.features(meta, batch.x)[0], batch.y[0], meta["prior_mean"]
    before = torch.diag((-meta["prior_log_var"]).exp())
    precision = before + phi.mT @ phi
    weights = torch.linalg.solve(precision, before @ start + phi.mT @ y)
    shape, scale = prior(meta)
    told = 0.5 * (y.mT @ y + start.mT @ before @ start - weights.mT @ precision @ weights).diagonal()
    torch.testing.assert_close(state["noise_scale"][0, 0], scale + told, rtol=1e-8, atol=1e-8)
    assert float(state["noise_shape"][0, 0, 0]) == pytest.approx(shape + 11 / 2)


def integrated(log_likelihood: Tensor, variances: Tensor, shape: float, scale: float) -> float:
    """The log of ∫ p(y | σ²) InvGamma(σ²; a, b) dσ² on a grid of log σ²."""
    log_prior = shape * math.log(scale) - math.lgamma(shape) - (shape + 1) * variances.log() - scale / variances
    values = (log_likelihood + log_prior + variances.log()).numpy()
    return float(np.log(np.trapezoid(np.exp(values - values.max()), variances.log().numpy())) + values.max())


GRID = torch.logspace(-5, 5, 20_001, dtype=torch.float64)


def test_evidence_integrates_the_noise_out() -> None:
    """The batch's density is the normal one's, weighed over all variances; by quadrature, output by output."""
    learner = head()
    meta, batch = learned(learner), rows(6)
    _, evidence = learner.update(meta, learner.init(meta, 1), batch, batch)
    phi = learner.features(meta, batch.x)[0]
    spread = torch.eye(6) + (phi * meta["prior_log_var"].exp()) @ phi.mT
    shape, scale = prior(meta)
    total = 0.0
    for output in range(2):
        residual = batch.y[0, :, output] - phi @ meta["prior_mean"][:, output]
        squares = residual @ torch.linalg.solve(spread, residual)
        likely = -0.5 * (6 * (2 * math.pi * GRID).log() + torch.logdet(spread) + squares / GRID)
        total += integrated(likely, GRID, shape, float(scale[output]))
    assert float(evidence.joint[0, 0]) == pytest.approx(total, rel=1e-6)


def test_a_row_is_foreseen_by_student_s_t() -> None:
    """Its density, from mean, variance and degrees of freedom, is the normal one's over the posterior of σ²."""
    learner = head(outputs=1)
    meta, query = learned(learner), rows(1, 1, seed=2)
    state = after(learner, meta, rows(5, 1), (5,))
    said = learner.predict(meta, state, query.x)
    assert said.df is not None
    found = -float(student_t_nll(said.mean, said.var, said.df[..., None, None], query.y[:, None])[0, 0, 0])
    phi = learner.features(meta, query.x)[0, 0]
    factor, mean = 1 + phi @ state["P"][0, 0] @ phi, phi @ state["W"][0, 0]
    likely = -gaussian_nll(mean, (GRID * factor)[:, None], query.y[0])
    shape, scale = float(state["noise_shape"][0, 0, 0]), float(state["noise_scale"][0, 0, 0])
    assert found == pytest.approx(integrated(likely, GRID, shape, scale), rel=1e-6)


@pytest.mark.parametrize("delay_rows", [0, 3])
def test_meta_loss_is_the_prequential_loss_of_the_server(delay_rows: int) -> None:
    """One Cholesky factor gives what predicting and learning row by row gives, noise that fades included."""
    learner = head(25.0, 0.1, 1, delay_rows)
    meta, batch = learned(learner), rows(12, 1)
    none = Batch(*(values[:, :0] for values in batch))
    loss = learner.meta_loss(meta, Episode(none, batch))
    keep, start = (1 - 1 / 25.0) ** 0.5, learner.init(meta, 1)
    losses = []
    for row in range(12):
        known = max(0, row - delay_rows)
        state = dict(after(learner, meta, batch, (1,) * known))
        aged = keep ** (row - known)  # weights move while labels are on their way, what is known of the noise does not
        state["W"] = start["W"] + aged * (state["W"] - start["W"])
        state["P"] = start["P"] + aged**2 * (state["P"] - start["P"])
        said = learner.predict(meta, state, batch.x[:, row : row + 1])
        assert said.df is not None
        losses.append(
            student_t_nll(said.mean, said.var, said.df[..., None, None], batch.y[:, None, row : row + 1])[0, 0]
        )
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-8, atol=1e-8)


def test_what_is_known_of_the_noise_fades() -> None:
    """The shape comes to a₀ and half of 1/rate rows; a stream that grows quiet is believed before long."""
    learner = head(500.0, 0.05, 1)
    meta, batch = learned(learner), rows(400, 1)
    state = after(learner, meta, batch, (1,) * 400)
    assert float(state["noise_shape"][0, 0, 0]) == pytest.approx(prior(meta)[0] + 0.5 / 0.05, rel=1e-6)
    quiet = batch._replace(y=batch.y * 0)
    later, _ = learner.update(meta, state, *[Batch(*(values[:, :100] for values in quiet))] * 2)
    assert float(later["noise_scale"][0, 0, 0]) < 0.5 * float(state["noise_scale"][0, 0, 0])


def test_an_unknown_kind_of_noise_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="choose one of tracked, unknown"):
        BayesHead("regression", 3, 1, noise="loud")
