"""The written-out gradient and its Hessian product, against autograd and finite differences."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from models import losses
from models.learners.backprop import WRITTEN_OUT, descend, loss_gradient
from models.networks import Mlp
from models.types import Batch, TaskKind, Tensors

STREAMS, ROWS, OUTPUTS = 3, 5, 2


def case(activation: str, task: TaskKind, *, shared: bool) -> tuple[Mlp, Tensors, Batch]:
    """A network of three layers in float64, its tensors of each stream or the same for all, and ragged rows."""
    network = Mlp((2, 4, 3, OUTPUTS), activation=activation)
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for name, tensor in network.init(generator).items():
        one = tensor.double() + 0.3 * torch.randn(tensor.shape, generator=generator).double()
        each = torch.randn(STREAMS, *tensor.shape, generator=generator).double()
        tensors[name] = one.expand(STREAMS, *tensor.shape) if shared else one + 0.2 * each
    x = torch.randn(STREAMS, ROWS, 2, generator=generator).double()
    y = torch.randn(STREAMS, ROWS, OUTPUTS, generator=generator).double()
    mask = torch.arange(ROWS) < torch.tensor([[ROWS], [2], [0]])
    return network, tensors, Batch(x, y if task == "regression" else y.argmax(-1), mask)


def by_autograd(network: Mlp, task: TaskKind, tensors: Tensors, batch: Batch) -> list[Tensor]:
    """The gradient of the losses that the learners state, by autograd."""
    outputs = network.apply(tensors, batch.x)
    if task == "classification":
        rows = losses.cross_entropy(torch.log_softmax(outputs, dim=-1), batch.y)
    else:
        rows = losses.squared_error(outputs, batch.y)
    total = losses.masked_mean(rows, batch.mask).sum()
    return list(torch.autograd.grad(total, list(tensors.values()), create_graph=True))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("activation", sorted(WRITTEN_OUT))
def test_gradient_and_hessian_product_are_autograds(activation: str, task: TaskKind, *, shared: bool) -> None:
    """To twelve digits, rows that do not count left out, whether the streams share their tensors or not."""
    network, tensors, batch = case(activation, task, shared=shared)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors.values()]
    named = dict(zip(tensors, leaves, strict=True))
    found = list(loss_gradient(network, task, named, batch).values())
    expected = by_autograd(network, task, named, batch)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(tensor.shape, generator=generator).double() for tensor in leaves]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)
    products = [torch.autograd.grad(gradients, leaves, directions) for gradients in (found, expected)]
    for one, other in zip(*products, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    assert all(not bool(part[2].any()) for part in found)  # a stream without rows


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_step_goes_down_the_clipped_gradient(task: TaskKind, *, shared: bool) -> None:
    """Streams whose gradient is short go all the way, the others as far as the bound; a lost one stays, bit for bit."""
    network, tensors, batch = case("relu", task, shared=shared)
    gradients = loss_gradient(network, task, tensors, batch)
    norm = torch.cat([tensor.flatten(1) for tensor in gradients.values()], dim=1).norm(dim=1)
    clip = float(norm[:2].mean())  # between the first two
    assert bool((norm[:2] > clip).any()) != bool((norm[:2] > clip).all())
    rates = {name: 0.1 * (at + 1) for at, name in enumerate(network.names)}
    found = descend(network, task, tensors, batch, rates, clip)
    scale = (clip / norm.clamp_min(1e-30)).clamp(max=1.0)
    for name, gradient in gradients.items():
        step = rates[name] * scale.view(-1, *[1] * (gradient.dim() - 1)) * gradient
        assert torch.allclose(found[name], tensors[name] - step, rtol=1e-12, atol=1e-13)
    batch.x[0, 0, 0] = torch.inf
    after = descend(network, task, tensors, batch, rates, clip)
    assert all(torch.equal(after[name][0], tensors[name][0]) for name in tensors)
    assert all(torch.allclose(after[name][1:], found[name][1:]) for name in tensors)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_hessian_product_is_what_finite_differences_say(task: TaskKind) -> None:
    """(g(θ + εv) − g(θ − εv)) / 2ε."""
    network, tensors, batch = case("tanh", task, shared=False)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(2)
    v = {name: torch.randn(tensor.shape, generator=generator).double() for name, tensor in tensors.items()}
    found = loss_gradient(network, task, leaves, batch)
    product = torch.autograd.grad(list(found.values()), list(leaves.values()), list(v.values()))
    ends = [
        loss_gradient(network, task, {name: tensor + step * v[name] for name, tensor in tensors.items()}, batch)
        for step in (-1e-6, 1e-6)
    ]
    for exact, name in zip(product, network.names, strict=True):
        for low, high in pairwise(ends):
            assert torch.allclose((high[name] - low[name]) / 2e-6, exact, rtol=1e-5, atol=1e-8)
