"""ANIL, CAVIA and Reptile: what each of them does otherwise than MAML."""

import pytest
import torch

from models.learners.anil import Anil
from models.learners.cavia import Cavia
from models.learners.maml import Maml
from models.learners.reptile import Reptile
from models.params import flatten, unflatten
from tests.models.learners.tiny import double, rows, tiny_episode, tiny_point


def test_anil_adapts_only_the_last_layer() -> None:
    """A stream's state has no other weights, and what is served is the shared body under the stream's own layer."""
    learner = Anil("regression", 1, 1, hidden=(8, 4), steps=2, inner_lr=0.1)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    batch = rows(3, 9)
    state, _ = learner.update(meta, learner.init(meta, 3), batch, batch)
    assert state.keys() == {"weight_2", "bias_2", "rows", "noise"}
    assert not torch.equal(state["weight_2"], meta["weight_2"].expand(3, -1, -1))
    h = torch.relu(torch.relu(batch.x @ meta["weight_0"] + meta["bias_0"]) @ meta["weight_1"] + meta["bias_1"])
    expected = h @ state["weight_2"] + state["bias_2"].unsqueeze(1)
    assert torch.allclose(learner.predict(meta, state, batch.x).mean[:, 0], expected, atol=1e-6)


def test_anil_steps_are_those_of_linear_regression() -> None:
    """One step on the last layer is θ − rate · ∇ mean squared error, in closed form from the body's features."""
    learner = Anil("regression", 1, 1, hidden=(8,), steps=1, inner_lr=0.1)
    meta = {name: t.double() for name, t in learner.meta_init(torch.Generator().manual_seed(0)).items()}
    batch = double(rows(1, 6))
    h = torch.relu(batch.x[0] @ meta["weight_0"] + meta["bias_0"])
    error = h @ meta["weight_1"] + meta["bias_1"] - batch.y[0]
    fast = learner.adapt(meta, batch)
    assert torch.allclose(fast["weight_1"][0], meta["weight_1"] - 0.1 * 2 * h.T @ error / 6)
    assert torch.allclose(fast["bias_1"][0], meta["bias_1"] - 0.1 * 2 * error.mean(0))


def test_cavia_adapts_only_the_context() -> None:
    """A stream's own is the context, zero at first; the network under it is shared, the context beside each input."""
    learner = Cavia("regression", 1, 1, hidden=(8,), steps=2, context=3)
    meta = learner.meta_init(torch.Generator().manual_seed(0))
    batch = rows(4, 9)
    fresh = learner.init(meta, 4)
    assert fresh.keys() == {"context", "rows", "noise"}
    assert "context" not in meta
    assert torch.equal(fresh["context"], torch.zeros(4, 3))
    state, _ = learner.update(meta, fresh, batch, batch)
    assert state["context"].any(1).all()
    joined = torch.cat([batch.x, state["context"].unsqueeze(1).expand(-1, 9, -1)], dim=-1)
    expected = torch.relu(joined @ meta["weight_0"] + meta["bias_0"]) @ meta["weight_1"] + meta["bias_1"]
    assert torch.allclose(learner.predict(meta, state, batch.x).mean[:, 0], expected, atol=1e-6)


def test_reptile_moves_from_the_initialization_to_where_the_steps_lead() -> None:
    """The outer gradient is θ − mean θ_k, with θ_k after plain SGD, step j on every k-th row from the j-th on."""
    learner = Reptile("regression", 1, 1, hidden=(4, 3), activation="tanh", inner_lr=0.1, steps=3)
    vector, start = tiny_point(learner)
    _, layout = flatten(start)
    episode = tiny_episode(learner)
    leaf = vector.clone().requires_grad_()
    meta = unflatten(leaf, layout)
    names = learner.net.names
    gradient = torch.autograd.grad(learner.query_loss(meta, episode), [meta[name] for name in names])
    led = []
    for task in range(3):
        x, y = (torch.cat([part[0][task, part[2][task]], part[1][task, part[2][task]]], dim=1) for part in episode)
        both = torch.cat([x, y])
        theta = [unflatten(vector, layout)[name].clone() for name in names]
        for step in range(3):
            leaves = [tensor.requires_grad_() for tensor in theta]
            seen = both[step::3]
            h = torch.tanh(torch.tanh(seen[:, :1] @ leaves[0] + leaves[1]) @ leaves[2] + leaves[3])
            loss = (h @ leaves[4] + leaves[5] - seen[:, 1:]).square().mean()
            slopes = torch.autograd.grad(loss, leaves)
            theta = [(tensor - 0.1 * slope).detach() for tensor, slope in zip(theta, slopes, strict=True)]
        led.append(theta)
    for index, name in enumerate(names):
        mean = torch.stack([theta[index] for theta in led]).mean(0)
        assert torch.allclose(gradient[index], unflatten(vector, layout)[name] - mean, atol=1e-12)
        assert gradient[index].abs().max() > 1e-4


def test_reptile_reports_the_query_loss() -> None:
    """What meta-validation sees is what MAML of the same steps would report, comparable between learners."""
    reptile = Reptile("regression", 1, 1, hidden=(4,), inner_lr=0.1, steps=3)
    maml = Maml("regression", 1, 1, hidden=(4,), inner_lr=0.1, steps=3)
    _, meta = tiny_point(reptile)
    episode = tiny_episode(reptile)
    assert float(reptile.meta_loss(meta, episode)) == pytest.approx(float(maml.meta_loss(meta, episode)), rel=1e-12)
