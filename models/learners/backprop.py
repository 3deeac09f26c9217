"""The gradient of a network's loss, and its product with the Hessian, written out: a tenth of autograd's operations.

For z_l = a_l W_l + b_l, a_{l+1} = σ(z_l) and a loss ℓ of the last z, with δ_l = ∂ℓ/∂z_l:

    ∂ℓ/∂W_l = a_lᵀ δ_l,   ∂ℓ/∂b_l = Σ_rows δ_l,   δ_{l−1} = (δ_l W_lᵀ) ⊙ σ'(z_{l−1})

The product of the Hessian with a direction v is what the operator R{·} = ∂/∂ε at θ + εv makes of these equations.

Reference:
    Pearlmutter (1994). Fast exact multiplication by the Hessian. Neural Computation 6.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.networks import Mlp
from models.types import Batch, TaskKind, Tensors

WRITTEN_OUT = frozenset({"relu", "tanh"})
"""Activations whose derivatives stand here."""


class _Pass(NamedTuple):
    """What forward and backward leave, a tensor a layer."""

    inputs: list[Tensor]  # a_l, (S, B, in)
    deltas: list[Tensor]  # δ_l, (S, B, out)
    share: Tensor  # (S, B, 1) weight of a row in its stream's mean
    probabilities: Tensor  # (S, B, C) of classes; empty for regression


def loss_gradient(network: Mlp, task: TaskKind, tensors: Tensors, batch: Batch) -> Tensors:
    """∂/∂θ of each stream's mean loss over its rows: squared error (mean over outputs) or cross-entropy.

    Differentiable once with respect to ``tensors``, where gradients are enabled; not with respect to the rows.

    Args:
        network: Whose last activation is the identity.
        task: Which loss.
        tensors: (S, …) each, under the network's names.
        batch: Rows of S streams.

    Returns:
        (S, …) each, under the same names.
    """
    flat = [tensors[name] for name in network.names]
    found: Sequence[Tensor] = _Gradient.apply(network, task, batch, *flat)  # type: ignore[no-untyped-call]
    return dict(zip(network.names, found, strict=True))


@torch.no_grad()
def descend(
    network: Mlp, task: TaskKind, tensors: Tensors, batch: Batch, rates: Mapping[str, float], clip: float
) -> Tensors:
    """One step of gradient descent; W - rate·aᵀδ is one product, so that no gradient is ever written.

    Args:
        network: Whose last activation is the identity.
        task: As for ``loss_gradient``.
        tensors: (S, …) each, under the network's names.
        batch: Rows of S streams.
        rates: Of each tensor.
        clip: A stream's gradient that is longer is cut to this norm; one that is not finite leaves the stream as it is.

    Returns:
        (S, …) each, under the same names.
    """
    flat = [tensors[name] for name in network.names]
    inputs, steep, _, _ = _backward(network, task, batch, flat)
    deltas, lost = _clipped(inputs, steep, clip)
    found: Tensors = {}
    for layer, (a, delta) in enumerate(zip(inputs, deltas, strict=True)):
        weight, bias = network.names[2 * layer : 2 * layer + 2]
        found[weight] = torch.baddbmm(tensors[weight], a.transpose(1, 2), delta, alpha=-rates[weight])
        found[bias] = torch.add(tensors[bias], delta.sum(1), alpha=-rates[bias])
    if lost is None:
        return found
    return {
        name: torch.where(lost.view(-1, *[1] * (tensor.dim() - 1)), tensors[name], tensor)
        for name, tensor in found.items()
    }


def _clipped(inputs: Sequence[Tensor], deltas: Sequence[Tensor], clip: float) -> tuple[Sequence[Tensor], Tensor | None]:
    """δ with which no stream's gradient is longer than ``clip``, and whose is not finite (S,), None where all are.

    ‖aᵀδ‖ ≤ ‖a‖‖δ‖ shows for almost all that nothing is to be cut; the others' gradients are looked at.
    """
    bound = torch.stack(
        [
            (a.square().sum((1, 2)) + a.shape[1]) * delta.square().sum((1, 2))  # the 1 of each row is the bias's input
            for a, delta in zip(inputs, deltas, strict=True)
        ]
    ).sum(0)
    steep = ~(bound <= clip**2)
    if not bool(steep.any()):
        return deltas, None
    who = steep.nonzero()[:, 0]
    squares = [
        torch.bmm(a[who].transpose(1, 2), delta[who]).square().sum((1, 2)) + delta[who].sum(1).square().sum(1)
        for a, delta in zip(inputs, deltas, strict=True)
    ]
    norm = torch.stack(squares).sum(0).sqrt()
    scale = torch.ones_like(bound).index_put((who,), (clip / norm).clamp(max=1.0))
    lost = torch.zeros_like(steep).index_put((who,), ~norm.isfinite())
    cut = [torch.where(lost[:, None, None], 0.0, delta * scale[:, None, None]) for delta in deltas]
    return cut, lost if bool(lost.any()) else None


class _Gradient(torch.autograd.Function):
    """The gradient as a function of θ; its derivative is the Hessian, which is symmetric."""

    @staticmethod
    def forward(ctx: Any, network: Mlp, task: TaskKind, batch: Batch, *flat: Tensor) -> tuple[Tensor, ...]:
        passed = _backward(network, task, batch, flat)
        ctx.save_for_backward(*flat, *passed.inputs, *passed.deltas, passed.share, passed.probabilities)
        ctx.network = network
        found = []
        for inputs, delta in zip(passed.inputs, passed.deltas, strict=True):
            found += [torch.bmm(inputs.transpose(1, 2), delta), delta.sum(1)]
        return tuple(found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *direction: Tensor) -> tuple[Tensor | None, ...]:
        layers = ctx.network.layers
        saved = ctx.saved_tensors
        flat, rest = saved[: 2 * layers], saved[2 * layers :]
        passed = _Pass(list(rest[:layers]), list(rest[layers : 2 * layers]), rest[-2], rest[-1])
        return (None, None, None, *_hessian_product(ctx.network, flat, passed, direction))


def _backward(network: Mlp, task: TaskKind, batch: Batch, flat: Sequence[Tensor]) -> _Pass:
    """Forward, then backward to every δ."""
    inputs, z = [], batch.x
    for layer in range(network.layers):
        inputs.append(z)
        z = _affine(flat[2 * layer + 1], z, flat[2 * layer])  # (S, B, out)
        if layer < network.layers - 1:
            z = torch.relu(z) if network.activation == "relu" else z.tanh()
    counted = batch.mask.to(z.dtype)
    share = (counted / counted.sum(1, keepdim=True).clamp(min=1.0)).unsqueeze(-1)
    if task == "classification":
        probabilities = torch.softmax(z, dim=-1)
        error = probabilities.clone()
        index = batch.y.unsqueeze(-1)
        error.scatter_add_(-1, index, error.new_full((), -1.0).expand(index.shape))
    else:
        probabilities = z.new_empty(0)
        share = share * (2.0 / z.shape[-1])
        error = z - batch.y
    deltas = [torch.where(batch.mask.unsqueeze(-1), share * error, 0.0)]
    for layer in range(network.layers - 1, 0, -1):
        back = _times(deltas[0], flat[2 * layer].transpose(1, 2))
        deltas.insert(0, _through(network, inputs[layer], back))
    return _Pass(inputs, deltas, share, probabilities)


def _shared(tensor: Tensor) -> bool:
    """Whether all streams have the same numbers, as before the first step: then one product does for all."""
    return tensor.stride(0) == 0 and tensor.shape[0] > 0


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """(S, B, in) by (S, in, out)."""
    return torch.matmul(x, weight[0]) if _shared(weight) else torch.bmm(x, weight)


def _affine(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``x W + b`` with b (S, out)."""
    if _shared(weight):
        return torch.matmul(x, weight[0]) + bias.unsqueeze(1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def _through(network: Mlp, activated: Tensor, gradient: Tensor) -> Tensor:
    """Times σ', given σ(z)."""
    if network.activation == "relu":
        return torch.ops.aten.threshold_backward(gradient, activated, 0.0)  # type: ignore[no-any-return]
    return gradient * (1.0 - activated.square())


def _hessian_product(network: Mlp, flat: Sequence[Tensor], passed: _Pass, direction: Sequence[Tensor]) -> list[Tensor]:
    """R{gradient} along a direction that has the tensors' shapes."""
    inputs, deltas, share, probabilities = passed
    r_inputs: list[Tensor | None] = [None]  # the rows do not move
    r_z: list[Tensor] = []
    for layer in range(network.layers):
        v = torch.baddbmm(direction[2 * layer + 1].unsqueeze(1), inputs[layer], direction[2 * layer])
        moved = r_inputs[layer]
        r_z.append(v if moved is None else v + _times(moved, flat[2 * layer]))
        if layer < network.layers - 1:
            r_inputs.append(_through(network, inputs[layer + 1], r_z[layer]))
    r_delta = r_z[-1]
    if probabilities.numel():
        r_delta = probabilities * (r_delta - (probabilities * r_delta).sum(-1, keepdim=True))
    r_delta = share * r_delta
    found: list[Tensor] = []
    for layer in range(network.layers - 1, -1, -1):
        transposed = inputs[layer].transpose(1, 2)
        r_weight, moved = torch.bmm(transposed, r_delta), r_inputs[layer]
        if moved is not None:
            r_weight = torch.baddbmm(r_weight, moved.transpose(1, 2), deltas[layer])
        found = [r_weight, r_delta.sum(1), *found]
        if layer == 0:
            break
        back = _times(r_delta, flat[2 * layer].transpose(1, 2))
        back = torch.baddbmm(back, deltas[layer], direction[2 * layer].transpose(1, 2))
        r_delta = _through(network, inputs[layer], back)
        if network.activation != "relu":  # σ'' = −2 σ σ' of tanh; a ReLU has none
            r_delta = r_delta - 2.0 * inputs[layer] * deltas[layer - 1] * r_z[layer - 1]
    return found
