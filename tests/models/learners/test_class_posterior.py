"""Gaussian classes against independent solutions of the same equations, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from models.learners.bounded import bounded
from models.learners.class_posterior import ClassPosterior
from models.types import Batch, Episode, Tensors

CLASSES = 3
NEVER = math.inf
"""A forgetting time at which nothing is forgotten."""


def classes(tau_rows: tuple[float, ...] = (NEVER,), delay_rows: int = 0) -> ClassPosterior:
    """A small classifier."""
    return ClassPosterior(
        "classification", 2, CLASSES, hidden=(6, 4), tau_rows=tau_rows, challenger_tau_rows=NEVER, delay_rows=delay_rows
    )


def learned(learner: ClassPosterior) -> Tensors:
    """Learned tensors with a prior that tells classes apart, in float64."""
    generator = torch.Generator().manual_seed(0)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(generator).items()}
    moved = [name for name in meta if name.startswith(("prior", "free"))]
    return meta | {
        name: meta[name] + 0.5 * torch.randn(meta[name].shape, generator=generator).double() for name in moved
    }


def rows(count: int, streams: int = 1, seed: int = 1) -> Batch:
    """Random labelled rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(streams, count, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (streams, count), generator=generator)
    return Batch(x, y, torch.ones(streams, count, dtype=torch.bool))


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Some of the rows."""
    return Batch(*(values[:, start:stop] for values in batch))


def after(learner: ClassPosterior, meta: Tensors, batch: Batch, cuts: tuple[int, ...]) -> Tensors:
    """The state that the rows lead to, cut into batches."""
    state, first = learner.init(meta, len(batch.x)), 0
    for cut in cuts:
        piece = part(batch, first, first + cut)
        state, _ = learner.update(meta, state, piece, piece)
        first += cut
    return state


def test_probabilities_equal_bayes_rule_written_out() -> None:
    """The joint normal of a class's rows and of a new one, conditioned by the textbook; Dirichlet counts; Bayes."""
    learner = classes()
    meta, batch, query = learned(learner), rows(9), rows(4, seed=2)
    found = learner.predict(meta, after(learner, meta, batch, (9,)), query.x).mean[0, 0].exp()
    prior = [part.numpy() for part in learner._prior(meta)]
    mean, variance, noise, alpha = prior
    power = float(bounded(1.0, meta["free_scale"]))
    phi, new = (learner.net.apply(meta, b.x)[0].numpy() for b in (batch, query))
    labels = batch.y[0].numpy()
    for row in range(4):
        likely = np.empty(CLASSES)
        for label in range(CLASSES):
            mine = phi[labels == label]
            count = len(mine)
            density = 1.0
            for d in range(phi.shape[1]):
                joint = variance[d] * np.ones((count + 1, count + 1)) + noise[d] * np.eye(count + 1)
                values = np.append(mine[:, d], new[row, d])
                whole = multivariate_normal(np.full(count + 1, mean[label, d]), joint).pdf(values)
                known = (
                    multivariate_normal(np.full(count, mean[label, d]), joint[:-1, :-1]).pdf(values[:-1])
                    if count
                    else 1.0
                )
                density *= whole / known
            likely[label] = (alpha[label] + count) * density**power
        np.testing.assert_allclose(found[row].numpy(), likely / likely.sum(), rtol=1e-8)


@pytest.mark.parametrize("cuts", [(1,) * 12, (5, 7), (12,)])
def test_rows_count_alike_however_they_are_cut(cuts: tuple[int, ...]) -> None:
    """A row that is a rows old counts (1 - 1/τ)^a, whether it came alone or in a batch."""
    learner = classes((8.0,))
    meta, batch = learned(learner), rows(12, streams=2)
    state = after(learner, meta, batch, cuts)
    phi = learner.net.apply(meta, batch.x)
    weight = (1 - 1 / 8.0) ** torch.arange(12, 0, -1).double()
    for label in range(CLASSES):
        mine = weight * (batch.y == label)
        torch.testing.assert_close(state["counts"][:, 0, label], mine.sum(1))
        torch.testing.assert_close(state["sums"][:, 0, label], (mine[..., None] * phi).sum(1))


def test_what_is_not_seen_again_fades_to_the_prior() -> None:
    """Long after its last row a class is as the meta-learned prior has it, and as frequent."""
    learner = classes((20.0,))
    meta, batch = learned(learner), rows(400)
    state = after(learner, meta, batch._replace(y=(batch.y == 0).long()), (400,))
    later = rows(400, seed=3)
    state, _ = learner.update(meta, state, *[later._replace(y=torch.ones_like(later.y))] * 2)
    assert float(state["counts"][0, 0, 0]) < 1e-6
    assert float(state["sums"][0, 0, 0].abs().max()) < 1e-6
    assert float(state["counts"][0, 0, 1]) == pytest.approx(19.0, rel=1e-6)


@pytest.mark.parametrize("delay_rows", [0, 3])
def test_meta_loss_is_the_prequential_loss_of_the_server(delay_rows: int) -> None:
    """One matrix of weights gives what predicting and learning row by row gives, at the label delay too."""
    learner = classes((25.0,), delay_rows)
    meta, batch = learned(learner), rows(14)
    loss = learner.meta_loss(meta, Episode(part(batch, 0, 2), part(batch, 2, 14)))
    keep, losses = 1 - 1 / 25.0, []
    for row in range(2, 14):
        known = max(0, row - delay_rows)
        state = after(learner, meta, batch, (1,) * known)
        aged = {name: value * keep ** (row - known) for name, value in state.items()}  # labels on their way take time
        log_p = learner.predict(meta, aged, batch.x[:, row : row + 1]).mean[0, 0, 0]
        losses.append(-log_p[batch.y[0, row]])
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-9, atol=1e-9)


def test_wild_rows_keep_probabilities_finite_in_float32() -> None:
    """Whatever comes in, the embedding and the variances are bounded."""
    learner = classes((100.0,))
    meta = {name: tensor.float() for name, tensor in learned(learner).items()}
    meta = {name: 100.0 * value if name.startswith("free") else value for name, value in meta.items()}
    state = after(learner, meta, Batch(*(v.float() if v.is_floating_point() else v for v in rows(50))), (50,))
    log_p = learner.predict(meta, state, torch.tensor([[[1e6, -1e6], [0.0, 1e-6]]])).mean
    assert bool(log_p.isfinite().all())
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(log_p.shape[:-1]))
