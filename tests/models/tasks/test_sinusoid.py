"""The sinusoid family: ranges, episodes, and streams that switch."""

import math

import pytest
import torch

from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes


def seeded(seed: int = 0) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def test_tasks_fill_the_published_ranges() -> None:
    """Amplitude .1 to 5, phase 0 to π, x from −5 to 5."""
    family = Sinusoid()
    tasks = family.draw(20_000, seeded())
    x = family.rows(tasks, 5, seeded(1)).x
    for values, low, high in ((tasks.amplitude, 0.1, 5.0), (tasks.phase, 0.0, math.pi), (x, -5.0, 5.0)):
        assert low <= float(values.min()) < low + 0.01
        assert high - 0.01 < float(values.max()) <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.1)


def test_labels_are_the_sinusoid_plus_noise() -> None:
    """Without noise exactly; with noise of the stated size."""
    tasks = Sinusoid().draw(500, seeded())
    clean = Sinusoid().rows(tasks, 20, seeded(1))
    assert torch.allclose(clean.y[3], tasks.amplitude[3] * torch.sin(clean.x[3] - tasks.phase[3]))
    noisy = Sinusoid(noise_std=0.3).rows(tasks, 20, seeded(1))
    assert torch.equal(noisy.x, clean.x)
    assert float((noisy.y - clean.y).std()) == pytest.approx(0.3, rel=0.05)


def test_episodes_draw_a_support_size_for_each_task() -> None:
    """All sizes of the range come, none outside; support and query are of one task but not the same rows."""
    episode = SinusoidEpisodes(tasks=500, support=(0, 4), query=7)(seeded())
    assert sorted(set(episode.support.mask.sum(1).tolist())) == [0, 1, 2, 3, 4]
    assert episode.query.x.shape == (500, 7, 1)
    assert episode.query.mask.all()
    assert not torch.isin(episode.query.x, episode.support.x).any()


def test_episodes_repeat_with_the_generator() -> None:
    """The same seed draws the same meta-batch, and a second draw another."""
    source, generator = SinusoidEpisodes(), seeded()
    first, second = source(generator), source(generator)
    assert torch.equal(first.support.y, source(seeded()).support.y)
    assert not torch.equal(first.support.y, second.support.y)


def test_streams_switch_as_often_as_the_hazard_says() -> None:
    """And keep their task in between."""
    family = Sinusoid(noise_std=0.1)
    streams = family.switching(50, 200, batch=5, hazard=0.05, generator=seeded())
    assert streams.x.shape == streams.y.shape == streams.truth.shape == (50, 200, 5, 1)
    assert not streams.changed[:, 0].any()
    assert float(streams.changed[:, 1:].float().mean()) == pytest.approx(0.05, abs=0.01)
    assert float((streams.y - streams.truth).std()) == pytest.approx(0.1, rel=0.05)
    calm = family.switching(3, 40, batch=5, hazard=0.0, generator=seeded())
    assert not calm.changed.any()
    basis = torch.cat([calm.x.sin(), calm.x.cos()], dim=-1).view(3, -1, 2)  # one task: linear in sin and cos
    fit = torch.linalg.lstsq(basis, calm.truth.view(3, -1, 1)).solution
    assert torch.allclose(basis @ fit, calm.truth.view(3, -1, 1), atol=1e-4)
