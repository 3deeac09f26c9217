"""The Bayesian head against independent solutions of the same equations, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.learners.basis import BANDWIDTHS
from models.learners.bayes_head import CHUNK_ROWS, BayesHead
from models.types import Batch, Episode, Tensors

FAR = 1e15
"""A forgetting time at which nothing is forgotten."""


def head(tau_rows: tuple[float, ...] = (FAR,), outputs: int = 1, **more: object) -> BayesHead:
    """A small regression head."""
    return BayesHead("regression", 3, outputs, hidden=(8, 4), tau_rows=tau_rows, challenger_tau_rows=FAR, **more)  # type: ignore[arg-type]


def learned(learner: BayesHead, seed: int = 0) -> Tensors:
    """Learned tensors with a prior that is not at its start, in float64."""
    generator = torch.Generator().manual_seed(seed)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(generator).items()}
    for name in ("prior_mean", "prior_log_var", "prior_factor", "log_noise"):
        if name in meta:
            meta[name] = meta[name] + 0.5 * torch.randn(meta[name].shape, generator=generator).double()
    return meta


def rows(count: int, outputs: int = 1, seed: int = 1, streams: int = 2) -> Batch:
    """Random rows of some streams."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(streams, count, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(streams, count, outputs, generator=generator, dtype=torch.float64)
    return Batch(x, y, torch.ones(streams, count, dtype=torch.bool))


def closed_form(learner: BayesHead, meta: Tensors, batch: Batch) -> tuple[Tensor, Tensor]:
    """Posterior from all rows at once: P = (P0⁻¹ + ΦᵀΦ)⁻¹, W = P(P0⁻¹W0 + ΦᵀY)."""
    phi = learner.features(meta, batch.x)
    precision = torch.diag((-meta["prior_log_var"]).exp())
    P = torch.linalg.inv(precision + phi.mT @ phi)
    return P @ (precision @ meta["prior_mean"] + phi.mT @ batch.y), P


@pytest.mark.parametrize("cuts", [(1,) * 12, (5, 7), (12,)])
def test_posterior_equals_the_batch_closed_form_however_rows_are_cut(cuts: tuple[int, ...]) -> None:
    """Rows one by one, in two batches or in one give the posterior of linear regression."""
    learner = head(outputs=2)
    meta, batch = learned(learner), rows(12, outputs=2)
    state, first = learner.init(meta, 2), 0
    for cut in cuts:
        part = Batch(*(values[:, first : first + cut] for values in batch))
        state, _ = learner.update(meta, state, part, part)
        first += cut
    W, P = closed_form(learner, meta, batch)
    torch.testing.assert_close(state["W"][:, 0], W, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state["P"][:, 0], P, rtol=1e-9, atol=1e-9)


def test_reversion_equals_a_kalman_filter_with_an_ornstein_uhlenbeck_transition() -> None:
    """The transition w' = γw + (1-γ)w0 + N(0, (1-γ²)P0), filtered by the textbook's equations in NumPy."""
    tau = 20.0
    learner = head((tau,))
    meta, batch = learned(learner), rows(30, streams=1)
    state = learner.init(meta, 1)
    for row in range(30):
        part = Batch(*(values[:, row : row + 1] for values in batch))
        state, _ = learner.update(meta, state, part, part)
    phi = learner.features(meta, batch.x)[0].numpy()
    start, prior = meta["prior_mean"][:, 0].numpy(), np.diag(meta["prior_log_var"].exp().numpy())
    gamma = np.sqrt(1 - 1 / tau)
    A, Q = gamma * np.eye(len(start)), (1 - gamma**2) * prior
    w, P = start.copy(), prior.copy()
    for f, y in zip(phi, batch.y[0, :, 0].numpy(), strict=True):
        innovation = f @ P @ f + 1.0
        gain = P @ f / innovation
        w, P = w + gain * (y - f @ w), (np.eye(len(w)) - np.outer(gain, f)) @ P
        w, P = A @ w + (1 - gamma) * start, A @ P @ A.T + Q
    np.testing.assert_allclose(state["W"][0, 0, :, 0].numpy(), w, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(state["P"][0, 0].numpy(), P, rtol=1e-6, atol=1e-9)


def test_evidence_is_the_joint_likelihood_of_the_batch() -> None:
    """It equals the density of a multivariate normal with covariance σ²(I + ΦPΦᵀ)."""
    learner = head()
    meta, batch = learned(learner), rows(6, streams=1)
    state = learner.init(meta, 1)
    _, evidence = learner.update(meta, state, batch, batch)
    phi = learner.features(meta, batch.x)[0]
    noise = meta["log_noise"].exp()
    covariance = noise * (torch.eye(6) + (phi * meta["prior_log_var"].exp()) @ phi.T)
    normal = torch.distributions.MultivariateNormal((phi @ meta["prior_mean"])[:, 0], covariance)
    torch.testing.assert_close(evidence.joint[0, 0], normal.log_prob(batch.y[0, :, 0]), rtol=1e-9, atol=1e-9)


def test_long_batches_are_chained_without_a_difference() -> None:
    """More rows than one chunk holds: the posterior is the closed form's, the evidence adds up by the chain rule."""
    learner = head()
    count = 2 * CHUNK_ROWS + 5
    meta, batch = learned(learner), rows(count, streams=1)
    state, evidence = learner.update(meta, learner.init(meta, 1), batch, batch)
    W, P = closed_form(learner, meta, batch)
    torch.testing.assert_close(state["W"][:, 0], W, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(state["P"][:, 0], P, rtol=1e-8, atol=1e-8)
    phi = learner.features(meta, batch.x)[0]
    covariance = meta["log_noise"].exp() * (torch.eye(count) + (phi * meta["prior_log_var"].exp()) @ phi.T)
    normal = torch.distributions.MultivariateNormal((phi @ meta["prior_mean"])[:, 0], covariance)
    torch.testing.assert_close(evidence.joint[0, 0], normal.log_prob(batch.y[0, :, 0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full_prior", [False, True])
@pytest.mark.parametrize("delay_rows", [0, 3])
def test_meta_loss_is_the_prequential_loss_of_the_server(delay_rows: int, *, full_prior: bool) -> None:
    """One Cholesky factor gives what predicting and learning row by row gives, at the label delay too."""
    learner = head((25.0,), delay_rows=delay_rows, full_prior=full_prior)
    meta, batch = learned(learner), rows(14, streams=1)
    none = Batch(*(values[:, :0] for values in batch))
    loss = learner.meta_loss(meta, Episode(none, batch))
    gamma2 = 1 - 1 / 25.0
    prior = learner.init(meta, 1)["P"][0, 0]
    losses = []
    for row in range(14):
        state = learner.init(meta, 1)
        for known in range(max(0, row - delay_rows)):
            part = Batch(*(values[:, known : known + 1] for values in batch))
            state, _ = learner.update(meta, state, part, part)
        waiting = min(row, delay_rows)  # time passes while labels are on their way
        W, P = state["W"][:, :1], state["P"][:, :1]
        for _ in range(waiting):
            W = gamma2**0.5 * W + (1 - gamma2**0.5) * meta["prior_mean"]
            P = gamma2 * P + (1 - gamma2) * prior
        phi = learner.features(meta, batch.x[:, row])[0]
        mean, var = phi @ W[0, 0], meta["log_noise"].exp() * (1 + phi @ P[0, 0] @ phi)
        normal = torch.distributions.Normal(mean, var.sqrt())
        losses.append(-normal.log_prob(batch.y[0, row]))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-9, atol=1e-9)


def test_meta_gradient_equals_finite_differences() -> None:
    """Central differences in float64 agree with autograd, for regression and for classes."""
    regression = head((25.0, 50.0))
    classes = BayesHead("classification", 3, 3, hidden=(8, 4), tau_rows=(25.0, 50.0))
    labels = torch.randint(3, (2, 9), generator=torch.Generator().manual_seed(2))
    for learner, batch in ((regression, rows(9)), (classes, rows(9)._replace(y=labels))):
        meta = learned(learner)
        episode = Episode(Batch(*(v[:, :4] for v in batch)), Batch(*(v[:, 4:] for v in batch)))
        for name in ("prior_mean", "prior_log_var", "body_weight_0"):
            leaf = {key: tensor.clone().requires_grad_(key == name) for key, tensor in meta.items()}
            (gradient,) = torch.autograd.grad(learner.meta_loss(leaf, episode), leaf[name])
            place = int(gradient.abs().argmax())
            step = torch.zeros_like(meta[name]).flatten()
            step[place] = 1e-6
            moved = [
                float(learner.meta_loss({**meta, name: meta[name] + sign * step.view_as(meta[name])}, episode))
                for sign in (1, -1)
            ]
            assert float(gradient.flatten()[place]) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-5)


def test_rows_in_batches_of_one_or_eight_forget_alike() -> None:
    """Time moves by rows: after the same rows the covariance is nearly the same."""
    learner = head((200.0,))
    meta, batch = learned(learner), rows(64, streams=1)
    ones, eights = learner.init(meta, 1), learner.init(meta, 1)
    for row in range(64):
        part = Batch(*(values[:, row : row + 1] for values in batch))
        ones, _ = learner.update(meta, ones, part, part)
    for start in range(0, 64, 8):
        part = Batch(*(values[:, start : start + 8] for values in batch))
        eights, _ = learner.update(meta, eights, part, part)
    torch.testing.assert_close(ones["P"][:, 0], eights["P"][:, 0], rtol=0.1, atol=0.05)


def test_reset_takes_the_challenger_over_and_restarts_it() -> None:
    """Alarmed streams' live members become the challenger's posterior; the others keep theirs bit for bit."""
    learner = head((50.0, 500.0))
    meta, batch = learned(learner), rows(5)
    state, _ = learner.update(meta, learner.init(meta, 2), batch, batch)
    alarm, idle = torch.tensor([True, False]), torch.tensor([True, False])
    new = learner.reset(meta, {name: value.clone() for name, value in state.items()}, alarm, idle, None)
    for name in ("W", "P"):
        assert torch.equal(new[name][0, 0], state[name][0, -1])
        assert torch.equal(new[name][0, 1], state[name][0, -1])
        assert torch.equal(new[name][0, -1], learner.init(meta, 1)[name][0, -1])
        assert torch.equal(new[name][1], state[name][1])


def test_covariance_stays_sound_in_float32_over_many_rows() -> None:
    """After 20,000 rows float32 is within a percent of float64, and symmetric."""
    learner = head((100.0, 3000.0))
    meta = learned(learner)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 20_000, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 20_000, 1, generator=generator, dtype=torch.float64)
    found = {}
    for dtype in (torch.float32, torch.float64):
        cast = {name: tensor.to(dtype) for name, tensor in meta.items()}
        state = learner.init(cast, 1)
        for start in range(0, 20_000, 20):
            part = Batch(x[:, start : start + 20].to(dtype), y[:, start : start + 20].to(dtype), torch.ones(1, 20) > 0)
            state, _ = learner.update(cast, state, part, part)
        found[dtype] = state["P"]
    single, double = found[torch.float32].double(), found[torch.float64]
    torch.testing.assert_close(single, double, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(single, single.mT, rtol=0, atol=1e-5)
    assert float(torch.linalg.eigvalsh(single).min()) > 0


def test_a_batch_of_no_rows_changes_nothing() -> None:
    """State bit for bit, evidence zero."""
    learner = head((50.0,))
    meta, batch = learned(learner), rows(3)
    state, _ = learner.update(meta, learner.init(meta, 2), batch, batch)
    none = Batch(*(values[:, :0] for values in batch))
    new, evidence = learner.update(meta, state, none, none)
    assert all(torch.equal(new[name], state[name]) for name in state)
    assert not evidence.joint.any()


def test_warm_start_is_the_ridge_regression_that_moves_the_mean_it_is_given() -> None:
    """Least squares on the rows and, one row a feature, on the given mean; from zero it is the plain regression."""
    learner = BayesHead("regression", 3, 2, hidden=(), quadratic=2, tau_rows=(FAR,), challenger_tau_rows=FAR)
    batch = rows(15, outputs=2, streams=1)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(torch.Generator()).items()}
    phi, y = learner.features(meta, batch.x)[0].numpy(), batch.y[0].numpy()
    for mean in (torch.zeros_like(meta["prior_mean"]), torch.ones_like(meta["prior_mean"])):
        found = learner.warm_start({**meta, "prior_mean": mean}, batch)["prior_mean"]
        system, answers = np.vstack([phi, np.eye(learner.width)]), np.vstack([y, mean.numpy()])
        np.testing.assert_allclose(found.numpy(), np.linalg.lstsq(system, answers, rcond=None)[0], rtol=1e-6)


def test_random_features_stand_for_a_sum_of_gaussian_kernels() -> None:
    """Inner products of the waves come to the mean of exp(-g²|x-x'|²/2F) over the bandwidths g."""
    learner = BayesHead("regression", 3, 1, hidden=(), skip=False, random_features=30_000)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(1))
    waves = learner.features(meta, x)[0, :, 1:]
    apart = torch.cdist(x[0], x[0]).square() / 3
    kernel = torch.stack([(-0.5 * width**2 * apart).exp() for width in BANDWIDTHS]).mean(0)
    torch.testing.assert_close(waves @ waves.mT, kernel, rtol=0, atol=0.03)


def test_random_frequencies_are_never_trained() -> None:
    """With a body or without, they are settled before meta-training begins."""
    for hidden in ((), (8, 4)):
        learner = BayesHead("regression", 3, 1, hidden=hidden, random_features=6)
        meta = learner.meta_init(torch.Generator().manual_seed(0))
        settled = learner.warm_start(meta, rows(5, streams=1)._replace(x=torch.randn(1, 5, 3), y=torch.randn(1, 5, 1)))
        assert torch.equal(settled["fourier_weights"], meta["fourier_weights"])
        assert torch.equal(settled["fourier_phases"], meta["fourier_phases"])
