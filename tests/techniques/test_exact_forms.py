"""What the exact techniques make of their sites: the layers that are left, not only that the values are equal."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import named

UP = "transposed convolution to depth to space"


def made(technique: str, graph: Graph, variant: str | None = None) -> Graph:
    """The graph after the first site (of that variant), checked for equal values."""
    sites = named(technique).find(graph).sites
    site = next(site for site in sites if variant in (None, site.variant))
    result = named(technique).apply(graph, site)
    x = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(result(x), graph(x), atol=1e-5, rtol=1e-4, check_dtype=False)
    return result


def traced(*layers: nn.Module, shape: tuple[int, ...] = (1, 3, 9, 8)) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), shape)


def kinds(graph: Graph) -> list[str]:
    return [type(graph.layer(node)).__name__ for node in graph.layers()]


def transposed(
    kernel: int, stride: int, padding: int, extra: int, crop: tuple[int, int, int, int] | None
) -> Graph | None:
    if extra >= stride:
        return None
    try:
        layer = (
            nn.ConvTranspose2d(3, 4, kernel, stride, padding, extra)
            if crop is None
            else ops.CroppedConvTranspose2d(3, 4, kernel, stride, padding, extra, crop=crop)
        )
        return traced(layer, ops.Affine(None, torch.randn(4, 1, 1)), nn.PReLU(4, 0.2), shape=(1, 3, 5, 6))
    except ValueError:
        return None


CROPS = (None, (0, 1, 0, 1), (1, 0, 0, 1))


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 4))
def test_every_geometry_of_a_transposed_convolution(kernel: int, stride: int) -> None:
    for padding, extra, crop in itertools.product((0, 1), (0, 1), CROPS):
        graph = transposed(kernel, stride, padding, extra, crop)
        found = None if graph is None else named(UP).find(graph)
        if graph is None or found is None or found.refusals:
            continue
        for site in found.sites:
            made(UP, graph, site.variant)
    if kernel < stride:
        graph = transposed(kernel, stride, 0, 0, None)
        assert graph is not None
        (refusal,) = named(UP).find(graph).refusals
        assert "is smaller than its stride" in refusal.reason


def test_a_kernel_as_wide_as_its_stride_becomes_a_1x1_convolution() -> None:
    graph = traced(nn.ConvTranspose2d(3, 4, 2, 2), nn.ReLU())
    result = made(UP, graph)
    assert kinds(result) == ["Conv2d", "ReLU", "DepthToSpace"]
    assert [site.variant for site in named(UP).find(graph).sites] == ["one convolution"]
    convolution = result.layer_as(next(result.layers()), nn.Conv2d)
    assert convolution is not None
    assert (convolution.kernel_size, convolution.out_channels) == ((1, 1), 16)


def test_phases_multiply_nothing_by_zero() -> None:
    graph = traced(ops.CroppedConvTranspose2d(3, 4, 3, 2, bias=False, crop=(0, 1, 0, 1)), nn.BatchNorm2d(4), nn.ReLU())
    joint, phases = made(UP, graph, "one convolution"), made(UP, graph, "a convolution per phase")
    count = [
        sum(p.numel() for name, p in each.module.named_parameters() if "bias" not in name) for each in (joint, phases)
    ]
    assert count == [4 * 4 * 3 * 4, 9 * 3 * 4]
    assert kinds(phases).count("Conv2d") == kinds(phases).count("ReLU") == 4, "activations come where they fuse"


def test_stride_one_is_a_convolution() -> None:
    assert kinds(made(UP, traced(nn.ConvTranspose2d(3, 4, 3, padding=1)))) == ["Conv2d"]


def test_two_depths_to_space_become_one() -> None:
    slopes = nn.PReLU(8)
    nn.init.uniform_(slopes.weight)
    graph = traced(
        nn.Conv2d(3, 32, 1), ops.DepthToSpace(2), slopes, nn.Conv2d(8, 4, 1), nn.Sigmoid(), ops.DepthToSpace(2)
    )
    assert kinds(made("depth to space last", graph)) == ["Conv2d", "PReLU", "Conv2d", "Sigmoid", "DepthToSpace"]


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize(
    "last", [nn.Conv2d(3, 2, 3, padding=1), nn.ConvTranspose2d(3, 2, 2, 2, bias=False), ops.DepthToSpace(1)],
    ids=["convolution", "transposed convolution", "no convolution"],
)  # fmt: skip
def test_two_classes_with_one_kept(last: nn.Module, kept: int) -> None:
    bias = ops.Affine(torch.rand(2, 1, 1) + 1, torch.randn(2, 1, 1))
    start: list[nn.Module] = [last] if not isinstance(last, ops.DepthToSpace) else [ops.Slice(1, 1, 3), nn.Tanh()]
    graph = traced(*start, bias, ops.Resize((20, 20)), nn.Softmax(1), ops.Slice(1, kept, kept + 1))
    result = made("softmax and argmax", graph)
    assert "Softmax" not in kinds(result)
    assert kinds(result)[-1] == "Sigmoid"
    assert ("Affine" in kinds(result)) == isinstance(last, ops.DepthToSpace)


def test_both_classes_and_the_order_of_argmax() -> None:
    assert kinds(made("softmax and argmax", traced(nn.Conv2d(3, 2, 1), nn.Softmax(1)))) == ["Conv2d", "Sigmoid"]
    masked = traced(nn.Conv2d(3, 5, 1), nn.Softmax(1), ops.ArgMax())
    assert kinds(made("softmax and argmax", masked)) == ["Conv2d", "ArgMax"]
    nearest = traced(nn.Conv2d(3, 5, 1), ops.Resize((18, 24), "nearest"), ops.ArgMax())
    early = kinds(made("softmax and argmax", nearest))
    assert early.index("ArgMax") < early.index("Resize")
    bilinear = named("softmax and argmax").find(traced(nn.Conv2d(3, 5, 1), ops.Resize((18, 24)), ops.ArgMax()))
    assert bilinear.sites == ()
    assert "mixes pixels" in bilinear.refusals[0].reason


class Spelled(nn.Module):
    """x · relu6(x + 3) / 6 in one of three orders."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order
        self.three, self.clip = ops.Affine(None, torch.tensor(3.0)), nn.ReLU6()
        self.sixth, self.product, self.hard = ops.Affine(torch.tensor(1 / 6), None), ops.Multiply(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        if self.order == 0:
            return self.sixth(self.product(x, self.clip(self.three(x))))
        if self.order == 1:
            return self.product(self.sixth(self.clip(self.three(x))), x)
        return self.product(self.hard(x), x)


@pytest.mark.parametrize("order", range(3))
def test_hard_swish_in_any_order(order: int) -> None:
    assert kinds(made("activation spelling", traced(nn.Conv2d(3, 4, 1), Spelled(order)))) == ["Conv2d", "Hardswish"]


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([nn.PReLU(3, 0.0)], ["ReLU"]),
        ([nn.PReLU(3, 0.2)], ["LeakyReLU"]),
        ([nn.Hardtanh(0.0, float("inf"))], ["ReLU"]),
        ([nn.Hardtanh(0.0, 9.0), nn.Hardtanh(-2.0, 6.0)], ["ReLU6"]),
        ([ops.Affine(None, torch.tensor(3.0)), nn.ReLU6(), ops.Affine(torch.tensor(1 / 6), None)], ["Hardsigmoid"]),
    ],
)
def test_spellings(layers: list[nn.Module], wanted: list[str]) -> None:
    assert kinds(made("activation spelling", traced(*layers))) == wanted


def test_what_is_no_such_spelling_is_left_alone() -> None:
    for layers in (
        [nn.PReLU(3)], [nn.ReLU()], [nn.ReLU6()], [nn.Hardtanh()],
        [ops.Affine(None, torch.tensor(2.0)), nn.ReLU6(), ops.Affine(torch.tensor(1 / 6), None)],
    ):  # fmt: skip
        layers[0].apply(lambda each: nn.init.uniform_(each.weight) if isinstance(each, nn.PReLU) else None)
        assert named("activation spelling").find(traced(*layers)).sites == ()


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([nn.ReLU(), ops.Slice(1, 0, 3), ops.Pad((0, 0, 0, 0)), ops.Resize((9, 8)), nn.Tanh()], ["ReLU", "Tanh"]),
        ([ops.Transpose((0, 2, 3, 1)), ops.Transpose((0, 3, 1, 2)), nn.Tanh()], ["Tanh"]),
        ([nn.ReLU6(), nn.MaxPool2d(2), nn.ReLU(), nn.Tanh()], ["ReLU6", "MaxPool2d", "Tanh"]),
        ([ops.Pad((1, 0, 0, 0)), ops.Pad((0, 1, 2, 0)), nn.Tanh()], ["Pad", "Tanh"]),
        ([nn.Conv2d(3, 8, 3), nn.PReLU(8), ops.Slice(1, 2, 4), nn.Tanh()], ["Conv2d", "PReLU", "Tanh"]),
        ([ops.Reshape((1, 216)), ops.Reshape((1, 3, 9, 8)), nn.Tanh()], ["Tanh"]),
    ],
)
def test_idle_layers_go(layers: list[nn.Module], left: list[str]) -> None:
    assert kinds(made("idle layers", traced(*layers))) == left


def test_layers_that_do_something_stay() -> None:
    for layers in (
        [ops.Cast("int32"), ops.Cast("float32")],
        [nn.Tanh(), nn.ReLU()],
        [ops.Pad((1, 1, 1, 1)), ops.Pad((-1, 0, 0, 0))],
        [ops.Transpose((0, 2, 3, 1)), ops.Reshape((1, 3, 8, 9), channels_last=False)],
    ):
        assert named("idle layers").find(traced(*layers, nn.Tanh())).sites == ()


def test_merged_layers() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.running_mean)
    chain = traced(nn.Conv2d(3, 3, 3, 2, 1, groups=3), norm, nn.Conv2d(3, 4, 1))
    assert kinds(made("merged linear layers", chain)) == ["Conv2d"]
    apart = ops.Affine(torch.rand(3, 1, 1), torch.randn(3, 1, 1))
    before = traced(nn.ReLU(), apart, nn.Conv2d(3, 4, 3, groups=1))
    assert kinds(made("merged linear layers", before)) == ["ReLU", "Conv2d"]
    padded = named("merged linear layers").find(traced(nn.ReLU(), apart, nn.Conv2d(3, 4, 3, padding=1)))
    assert padded.sites == ()
    assert "pads with zeros" in padded.refusals[0].reason
    scale_alone = traced(ops.Affine(torch.tensor(0.1), None), nn.ConvTranspose2d(3, 4, 3, 2, 1))
    assert kinds(made("merged linear layers", scale_alone)) == ["ConvTranspose2d"]


def test_bands_overlap_by_what_the_stage_sees() -> None:
    depthwise = [nn.Conv2d(4, 4, 3, padding=1, groups=4) for _ in range(3)]
    graph = traced(nn.Conv2d(3, 4, 1), *depthwise, nn.Conv2d(4, 2, 1), shape=(1, 3, 64, 8))
    result = made("bands as channels", graph)
    wide = next(node for node in result.layers() if result.shape(node)[1] == 8)
    assert result.shape(wide)[2] == 32 + 3
    (site,) = named("bands as channels").find(graph).sites
    other = traced(nn.Conv2d(3, 4, 1), *(nn.Tanh() for _ in range(4)), shape=(1, 3, 64, 8))
    with pytest.raises(Unsupported):
        named("bands as channels").apply(other, site)


def test_rows_hold_the_constants_of_their_channels() -> None:
    slopes = nn.PReLU(3)
    nn.init.uniform_(slopes.weight)
    result = made("constants per row", traced(slopes))
    row = result.layer_as(result.output, ops.SpatialPReLU)
    assert row is not None
    assert row.weight.shape == (3, 1, 8)
