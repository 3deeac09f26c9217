"""Batched networks against the plain product, one stream at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.networks import Conv, Mlp, linear, network_of, per_stream
from models.types import Tensors


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


def conv_oracle(net: Conv, tensors: Tensors, image_rows: Tensor) -> Tensor:
    """One stream through torch's modules, in the textbook's order: convolve, normalise, add the bias, relu, pool."""
    x = image_rows.view(-1, net.planes, net.side, net.side)
    for block in range(len(net.filters)):
        x = functional.conv2d(x, tensors[f"weight_{block}"], padding=1)
        over = (1, 2, 3) if net.norm == "layer" else (2, 3)
        mean, var = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt() + tensors[f"bias_{block}"].view(1, -1, 1, 1)
        x = functional.max_pool2d(functional.relu(x), 2)
    x = x.flatten(1)
    return functional.linear(x, tensors["weight_2"].mT, tensors["bias_2"]) if net.outputs else x


def off_zero(net: Conv, seed: int) -> Tensors:
    """Tensors whose biases are not zero."""
    generator = torch.Generator().manual_seed(seed)
    return {name: t + 0.3 * torch.randn(t.shape, generator=generator) for name, t in net.init(generator).items()}


@pytest.mark.parametrize(
    "net",
    [
        Conv(7, filters=(5, 4)),
        Conv(6, planes=2, filters=(3, 4), outputs=3),
        Conv(7, planes=2, filters=(5, 4), norm="instance"),
    ],
)
def test_each_stream_is_convolved_with_its_own_filters(net: Conv) -> None:
    """A batch of streams equals torch's own layers, one stream at a time; odd sides lose their last row and column."""
    streams = [off_zero(net, seed) for seed in range(4)]
    stacked = {name: torch.stack([tensors[name] for tensors in streams]) for name in net.names}
    x = torch.randn(4, 6, net.planes * net.pixels, generator=torch.Generator().manual_seed(9))
    together = net.apply(stacked, x)
    assert together.shape == (4, 6, net.width)
    for index, tensors in enumerate(streams):
        assert torch.allclose(together[index], conv_oracle(net, tensors, x[index]), atol=1e-5)


def test_shared_and_expanded_filters_agree() -> None:
    """Filters that streams share give what their copies give, and each may meet the other's kind of bias."""
    net = Conv(9, filters=(4, 4), outputs=3)
    tensors = off_zero(net, 0)
    x = torch.randn(3, 4, 81, generator=torch.Generator().manual_seed(1))
    shared, copies = net.apply(tensors, x), per_stream(tensors, net.names, 3)
    weights = [name for name in net.names if name.startswith("weight")]
    biases = [name for name in net.names if name.startswith("bias")]
    for own in (net.names, weights, biases):
        mixed = {name: copies[name] if name in own else tensors[name] for name in net.names}
        assert torch.allclose(net.apply(mixed, x), shared, atol=1e-5)


def test_an_image_does_not_feel_its_neighbours() -> None:
    """What comes out for a row is the same whatever other rows are asked about with it."""
    net = Conv(8, filters=(4, 4, 4))
    tensors = off_zero(net, 0)
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    others = torch.cat([x[:, :1], 100.0 * torch.ones(2, 3, 64)], dim=1)
    assert torch.allclose(net.apply(tensors, others)[:, 0], net.apply(tensors, x)[:, 0], atol=1e-5)


def test_gradients_of_convolutions_are_those_of_differences_twice() -> None:
    """First and second derivatives by every stream's own filters, against central differences in float64."""
    net = Conv(4, filters=(2, 2), activation="tanh", outputs=2)
    copies = {name: t.double().clone() for name, t in per_stream(off_zero(net, 3), net.names, 2).items()}
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1)).double()
    values = [copies[name].requires_grad_() for name in net.names]

    def outputs(*tensors: Tensor) -> Tensor:
        return net.apply(dict(zip(net.names, tensors, strict=True)), x)

    assert torch.autograd.gradcheck(outputs, values)
    assert torch.autograd.gradgradcheck(outputs, values)


def test_blank_and_absent_images_are_no_problem() -> None:
    """An image without contrast has finite outputs and gradients; no images give no rows."""
    net = Conv(4, filters=(3, 3), outputs=2)
    tensors = {name: tensor.requires_grad_() for name, tensor in net.init(torch.Generator()).items()}
    out = net.apply(tensors, torch.zeros(2, 3, 16))
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), list(tensors.values())))
    assert net.apply(tensors, torch.zeros(2, 0, 16)).shape == (2, 0, 2)
    own = per_stream(tensors, net.names, 2)
    assert net.apply(own, torch.zeros(2, 0, 16)).shape == (2, 0, 2)


def test_conv_4_maps_28_pixels_to_64_features() -> None:
    """The literature's shape: four blocks of 64 filters leave one pixel of an image of 28×28."""
    net = network_of("conv", 784, (64, 64, 64, 64))
    assert isinstance(net, Conv)
    assert net == Conv(side=28)
    assert network_of("conv_instance", 784, (64, 64, 64, 64)) == Conv(side=28, norm="instance")
    assert net.width == 64
    assert sum(tensor.numel() for tensor in net.init(torch.Generator()).values()) == 9 * (64 + 3 * 64**2) + 4 * 64


@pytest.mark.parametrize(
    ("kind", "inputs", "hidden", "says"),
    [
        ("resnet", 4, (4,), "conv, conv_instance, mlp"),
        ("conv", 12, (4,), "12 inputs"),
        ("conv", 16, (4,) * 3, "fewer blocks"),
    ],
)
def test_a_network_that_cannot_be_is_refused(kind: str, inputs: int, hidden: tuple[int, ...], says: str) -> None:
    """The message says what would do: a known kind, a square image, blocks that leave something of it."""
    with pytest.raises(ValueError, match=says):
        network_of(kind, inputs, hidden)


def test_a_convolution_of_no_width_is_refused() -> None:
    """Blocks have filters, images have planes, and activations are known ones."""
    for change in ({"filters": ()}, {"filters": (4, 0)}, {"planes": 0}, {"activation": "gelu"}):
        with pytest.raises(ValueError, match=r"widths|relu"):
            Conv(16, **change)
