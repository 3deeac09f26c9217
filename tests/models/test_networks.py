"""Batched networks against the plain product, one stream at a time."""

import pytest
import torch

from models.networks import Mlp, linear, per_stream


def test_each_stream_goes_through_its_own_weights() -> None:
    """A batch of streams equals the streams one by one."""
    net = Mlp((2, 5, 4, 3), activation="tanh", prefix="body_")
    streams = [net.init(torch.Generator().manual_seed(seed)) for seed in range(4)]
    stacked = {name: torch.stack([tensors[name] for tensors in streams]) for name in net.names}
    x = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(9))
    together = net.apply(stacked, x)
    assert together.shape == (4, 6, 3)
    for index, tensors in enumerate(streams):
        assert torch.allclose(together[index], net.apply(tensors, x[index : index + 1])[0], atol=1e-6)


def test_shared_and_expanded_weights_agree() -> None:
    """Weights that streams share give what their copies give."""
    net = Mlp((2, 5, 1))
    tensors = net.init(torch.Generator().manual_seed(0))
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(net.apply(per_stream(tensors, net.names, 3), x), net.apply(tensors, x), atol=1e-6)


def test_shared_weight_may_meet_a_bias_of_each_stream() -> None:
    """And the other way round."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((3, 4, 2), (2, 5), (3, 5)))
    expected = torch.stack([x[s] @ weight + bias[s] for s in range(3)])
    assert torch.allclose(linear(x, weight, bias), expected, atol=1e-6)
    assert torch.allclose(linear(x, weight.expand(3, 2, 5), bias[0]), x @ weight + bias[0], atol=1e-6)


def test_layers_are_what_the_equation_says() -> None:
    """max(0, x·W₀ + b₀)·W₁ + b₁, squashed at the end if asked."""
    net = Mlp((1, 2, 1), last="tanh")
    tensors = {
        "weight_0": torch.tensor([[1.0, -1.0]]), "bias_0": torch.tensor([0.0, 1.0]),
        "weight_1": torch.tensor([[2.0], [3.0]]), "bias_1": torch.tensor([0.5]),
    }  # fmt: skip
    x = torch.tensor([[[2.0], [-2.0]]])
    assert torch.allclose(net.apply(tensors, x), torch.tensor([[[4.5], [9.5]]]).tanh())


def test_init_is_decided_by_the_generator() -> None:
    """The same seed, the same bits; the global generator is not touched."""
    net = Mlp((3, 4, 2))
    before = torch.get_rng_state()
    one, other = (net.init(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in net.names)
    assert torch.equal(before, torch.get_rng_state())


def test_no_rows_are_no_problem() -> None:
    """A batch of no rows gives none."""
    net = Mlp((2, 3, 1))
    tensors = net.init(torch.Generator())
    assert net.apply(per_stream(tensors, net.names, 2), torch.zeros(2, 0, 2)).shape == (2, 0, 1)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0, 1)])
def test_a_network_without_layers_is_refused(sizes: tuple[int, ...]) -> None:
    """It needs an input and an output, all of some width."""
    with pytest.raises(ValueError, match="widths"):
        Mlp(sizes)


def test_an_unknown_activation_is_refused_with_the_known_ones() -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match="relu"):
        Mlp((1, 1), activation="gelu")
