"""Prototypical and matching networks: the papers' formulas, computed directly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.errors import InputError
from models.learners.matchingnet import MatchingNet
from models.learners.metric import MetricLearner
from models.learners.protonet import ProtoNet
from models.types import Batch, Tensors

KINDS = (ProtoNet, MatchingNet)


def learner_and_meta(kind: Callable[..., MetricLearner], **options: object) -> tuple[MetricLearner, Tensors]:
    """Three classes in two dimensions, float64, the prior off its even start."""
    learner = kind("classification", 2, 3, hidden=(6, 4), **options)
    generator = torch.Generator().manual_seed(0)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(generator).items()}
    for name in ("prior", "free_rows", "free_scale"):
        meta[name] = meta[name] + 0.3 * torch.randn(meta[name].shape, generator=generator).double()
    return learner, meta


def labelled(streams: int, count: int, seed: int = 0, classes: int = 3) -> Batch:
    """Random rows; the last one of the last stream is padding."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(streams, count, dtype=torch.bool)
    mask[-1, -1] = False
    x = torch.randn(streams, count, 2, generator=generator).double()
    return Batch(x, torch.randint(0, classes, (streams, count), generator=generator), mask)


def embedded(meta: Tensors, x: Tensor) -> Tensor:
    """The embedding, written out."""
    return torch.tanh(torch.relu(x @ meta["weight_0"] + meta["bias_0"]) @ meta["weight_1"] + meta["bias_1"])


def constants(meta: Tensors) -> tuple[Tensor, Tensor]:
    """The scale and the pseudo-counts, near one where they are free of bounds."""
    return tuple(torch.exp(3 * torch.tanh(meta[name] / 3)) for name in ("free_scale", "free_rows"))  # type: ignore[return-value]


def served(learner: MetricLearner, meta: Tensors, window: Batch, x: Tensor) -> Tensor:
    """(S, B, C) probabilities of the live member after the window."""
    state, _ = learner.update(meta, learner.init(meta, x.shape[0]), window, window)
    return learner.predict(meta, state, x).mean[:, 0].exp()


def test_protonet_is_softmax_of_minus_squared_distances_to_class_means() -> None:
    """Row by row and class by class; the prior prototype counts as its pseudo-rows."""
    learner, meta = learner_and_meta(ProtoNet)
    window, x = labelled(2, 7), labelled(2, 4, seed=1).x
    found = served(learner, meta, window, x)
    scale, prior_rows = constants(meta)
    for stream in range(2):
        prototypes = []
        for c in range(3):
            chosen = window.mask[stream] & (window.y[stream] == c)
            own = embedded(meta, window.x[stream, chosen])
            total = prior_rows[c] * meta["prior"][c] + own.sum(0)
            prototypes.append(total / (prior_rows[c] + len(own)))
        for row, phi in enumerate(embedded(meta, x[stream])):
            distances = torch.stack([(phi - prototype).square().sum() for prototype in prototypes])
            assert torch.allclose(found[stream, row], torch.softmax(-scale * distances, dim=0), atol=1e-12)


def test_matchingnet_is_attention_over_the_rows() -> None:
    """Softmax of minus squared distances to every row and prior prototype, summed by class."""
    learner, meta = learner_and_meta(MatchingNet, memory_rows=16)
    window, x = labelled(2, 7), labelled(2, 4, seed=1).x
    found = served(learner, meta, window, x)
    scale, prior_rows = constants(meta)
    for stream in range(2):
        there = window.mask[stream]
        keys = torch.cat([embedded(meta, window.x[stream, there]), meta["prior"]])
        labels = torch.cat([window.y[stream, there], torch.arange(3)])
        weight = torch.cat([torch.ones(int(there.sum())).double(), prior_rows])
        for row, phi in enumerate(embedded(meta, x[stream])):
            attention = weight * torch.exp(-scale * (phi - keys).square().sum(1))
            expected = torch.stack([attention[labels == c].sum() for c in range(3)]) / attention.sum()
            assert torch.allclose(found[stream, row], expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cosine_looks_at_directions_alone(kind: Callable[..., MetricLearner]) -> None:
    """A longer embedding of the same direction is as similar; a similarity is ten cosines to begin with."""
    learner, meta = learner_and_meta(kind, distance="cosine")
    generator = torch.Generator().manual_seed(3)
    phi, keys = (torch.randn(2, 5, 4, generator=generator).double() for _ in range(2))
    scale, _ = constants(meta)
    expected = 10 * scale * torch.cosine_similarity(phi.unsqueeze(2), keys.unsqueeze(1), dim=-1)
    assert torch.allclose(learner.similarity(meta, phi, keys), expected, atol=1e-9)
    assert torch.allclose(learner.similarity(meta, 0.1 * phi, 3.0 * keys), expected, atol=1e-9)
    assert bool(learner.similarity(meta, 0.0 * phi, keys).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_rows_keeps_its_prior(kind: Callable[..., MetricLearner]) -> None:
    """It stays possible, and most likely where a row lies at its prior prototype and the others' rows do not."""
    learner, meta = learner_and_meta(kind)
    meta["free_scale"] = torch.tensor(2.0).double()
    window, x = labelled(1, 6, classes=2), labelled(1, 1, seed=5).x
    meta["prior"][2] = embedded(meta, x[0, 0])
    probabilities = served(learner, meta, window, x)
    assert float(probabilities[0, 0, 2]) > 1 / 3
    assert bool((served(learner, meta, window, 100.0 * x) > 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("free", [1e6, -1e6])
def test_log_probabilities_and_gradients_stay_finite(
    kind: Callable[..., MetricLearner], distance: str, free: float
) -> None:
    """In float32, whatever was learned and however far a row is."""
    learner = kind("classification", 2, 3, hidden=(6, 32), distance=distance)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    meta |= {name: torch.full_like(meta[name], free) for name in ("free_rows", "free_scale")}
    meta["prior"] = meta["prior"] + 1.0
    meta = {name: tensor.requires_grad_() for name, tensor in meta.items()}
    rows = labelled(2, 7, classes=2)
    window, x = rows._replace(x=1e4 * rows.x.float()), -1e4 * labelled(2, 5, seed=1).x.float()
    state = learner.support_state(meta, window)
    log_p = learner.log_probabilities(meta, state, learner.net.apply(meta, x))
    assert bool(log_p.isfinite().all())
    gradients = torch.autograd.grad(log_p.sum(), list(meta.values()), allow_unused=True)
    assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)


def test_matchingnet_keeps_the_last_rows() -> None:
    """Of a window that is longer than the memory only the newest rows matter, padding not counted."""
    learner, meta = learner_and_meta(MatchingNet, memory_rows=3)
    window, x = labelled(2, 8), labelled(2, 4, seed=1).x
    found = served(learner, meta, window, x)
    whole, _ = learner_and_meta(MatchingNet, memory_rows=16)
    newest = [Batch(*(t[:1, 5:] for t in window)), Batch(*(t[1:, 4:7] for t in window))]
    for stream, last in enumerate(newest):
        assert torch.allclose(found[stream], served(whole, meta, last, x[stream : stream + 1])[0], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_that_of_the_window_alone(kind: Callable[..., MetricLearner]) -> None:
    """Whatever was learned before: rows that left the window are forgotten, and nothing adds up."""
    learner, meta = learner_and_meta(kind)
    fresh, window = learner.init(meta, 2), labelled(2, 5, seed=4)
    used, _ = learner.update(meta, fresh, labelled(2, 5, seed=2), labelled(2, 9, seed=3))
    once, _ = learner.update(meta, fresh, window, window)
    twice, _ = learner.update(meta, used, window, window)
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize("kind", KINDS)
def test_before_meta_training_no_class_is_preferred(kind: Callable[..., MetricLearner]) -> None:
    """The prior is even: a new stream and the challenger predict uniform probabilities."""
    learner = kind("classification", 2, 3, hidden=(6, 4))
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    mean = learner.predict(meta, learner.init(meta, 2), labelled(2, 4).x.float()).mean
    assert torch.allclose(mean.exp(), torch.tensor(1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_without_meaning_are_refused(kind: Callable[..., MetricLearner]) -> None:
    """Numbers have no classes; there are two distances."""
    with pytest.raises(InputError, match="classification only, got regression"):
        kind("regression", 2, 1)
    with pytest.raises(ValueError, match="squared_euclidean"):
        kind("classification", 2, 3, distance="manhattan")
    with pytest.raises(ValueError, match="memory_rows"):
        MatchingNet("classification", 2, 3, memory_rows=0)
