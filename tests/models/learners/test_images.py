"""Learners on images: few drawings say which is which, through a bundle and the engine as well."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import Batch, Engine, Episode, Feedback, Model, meta_train, read_bundle, write_bundle
from models.learners import LEARNERS
from models.plan import Plan
from models.types import DetectorChoice, Expert, Feature, ModelSpec, Target

SIDE, WAYS = 8, 3
NETWORK: Mapping[str, Any] = {"network": "conv", "hidden": (8, 8, 8)}
GIVEN: Mapping[str, Mapping[str, Any]] = {
    "anil": {"inner_lr": 0.5, "steps": 3},
    "bayes_head": {"full_prior": True, "skip": False, "tau_rows": (1e9,)},
    "cavia": {"inner_lr": 3.0, "steps": 3, "context": 8},
    "class_posterior": {"tau_rows": (1e9,)},
    "maml": {"inner_lr": 0.4, "steps": 1},
    "matchingnet": {},
    "meta_sgd": {"inner_lr": 0.4, "steps": 1},
    "protonet": {},
    "reptile": {"inner_lr": 0.1, "steps": 10},
}


def glyphs(tasks: int, shots: int, generator: torch.Generator, side: int = SIDE) -> Batch:
    """Rows of three glyphs a task: coarse random patterns, each drawing of them with noise."""
    patterns = torch.randn(tasks, 1, WAYS, side // 2, side // 2, generator=generator)
    images = patterns.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2).expand(-1, shots, -1, -1, -1)
    images = images + 0.5 * torch.randn(images.shape, generator=generator)  # (tasks, shots, WAYS, side, side)
    y = torch.arange(WAYS).repeat(tasks, shots)
    return Batch(images.flatten(3).flatten(1, 2), y, torch.ones_like(y, dtype=torch.bool))


def episodes(generator: torch.Generator) -> Episode:
    """Four tasks of two drawings of each glyph; three of each are asked about."""
    rows = glyphs(4, 5, generator)
    return Episode(*(Batch(*(t[:, part] for t in rows)) for part in (slice(2 * WAYS), slice(2 * WAYS, None))))


def accuracy(log_p: Tensor, y: Tensor) -> float:
    """Share of rows whose likeliest class is right."""
    return float((log_p.argmax(-1) == y).float().mean())


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_adapts_to_images(name: str) -> None:
    """After a brief meta-training, five drawings of each glyph of a new task tell well what was a guess before."""
    learner = LEARNERS[name](task="classification", inputs=SIDE**2, outputs=WAYS, **NETWORK, **GIVEN[name])
    trained = meta_train(learner, episodes, generator=torch.Generator().manual_seed(0), iterations=100, outer_lr=1e-2)
    rows = glyphs(40, 10, torch.Generator().manual_seed(1))
    support, query = (Batch(*(t[:, part] for t in rows)) for part in (slice(5 * WAYS), slice(5 * WAYS, None)))
    fresh = learner.init(trained.meta, 40)
    state, _ = learner.update(trained.meta, fresh, support, support)
    before, after = (
        accuracy(learner.predict(trained.meta, at, query.x).mean[:, 0].detach(), query.y) for at in (fresh, state)
    )
    assert before < 0.5
    assert after > 0.55


def test_a_convolutional_bundle_predicts_and_learns_through_the_engine() -> None:
    """Conv-4 on 784 numeric features is saved, loaded, served; a few labelled images raise their classes' odds."""
    side = 28
    spec = ModelSpec(
        name="glyphs",
        task="classification",
        features=tuple(Feature(f"pixel_{pixel}") for pixel in range(side**2)),
        target=Target("glyph", classes=("a", "b", "c")),
        experts=(Expert("conv", "protonet", {"network": "conv", "hidden": [4, 4, 4, 4]}),),
        detector=DetectorChoice("page_hinkley"),
        standardiser_rows=0,
    )
    meta = Plan.of(spec).learners["conv"].meta_init(torch.Generator().manual_seed(0))
    data = write_bundle(Model(spec, {f"conv.{name}": tensor for name, tensor in meta.items()}))
    model = read_bundle(data)
    assert write_bundle(model) == data
    engine = Engine(model)
    slot = engine.create()
    x, y, _ = (tensor[0].double().numpy() for tensor in glyphs(1, 4, torch.Generator().manual_seed(3), side))
    before = engine.predict([(slot, x)])[0]
    engine.apply(engine.step([Feedback(slot, x, y[:, None])]))
    after = engine.predict([(slot, x)])[0]
    assert before.probabilities is not None
    assert after.probabilities is not None
    right = y.astype(int)
    assert np.asarray(before.probabilities) == pytest.approx(np.full((len(y), WAYS), 1 / WAYS), abs=1e-5)
    assert (np.asarray(after.probabilities).argmax(1) == right).mean() > 0.6
    again = Engine(read_bundle(data))
    copy = again.restore(engine.snapshot(slot))
    assert again.predict([(copy, x)])[0].probabilities == after.probabilities


@pytest.mark.parametrize("name", ["protonet", "matchingnet"])
def test_a_wide_embedding_does_not_begin_saturated(name: str) -> None:
    """However many numbers an embedding has, answers about nothing but noise cost not much more than a guess."""
    side = 24
    rows = glyphs(20, 4, torch.Generator().manual_seed(0), side)
    rows = rows._replace(x=torch.randn(rows.x.shape, generator=torch.Generator().manual_seed(1)))
    episode = Episode(*(Batch(*(t[:, part] for t in rows)) for part in (slice(WAYS), slice(WAYS, None))))
    for width in (8, 64):
        learner = LEARNERS[name](
            task="classification", inputs=side**2, outputs=WAYS, network="conv_instance", hidden=(8, 8, width)
        )
        meta = learner.meta_init(torch.Generator().manual_seed(0))
        assert learner.meta_loss(meta, episode) < 2 * np.log(WAYS)
