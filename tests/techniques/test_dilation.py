"""A dilated convolution without its holes: same shape, same weights, nearer pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques import Settings, Site, named
from slimseg.techniques.algebra.cascade import cascade
from slimseg.techniques.dilation import CASCADE, NO_HOLES, Form

NAME = "convolution without dilation"


def graph_of(*layers: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), (1, 8, 24, 32), "net")


def site_of(graph: Graph, settings: Settings = NO_HOLES) -> Site:
    (site,) = (site for site in named(NAME).find(graph).sites if site.settings == settings)
    return site


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), 1, (2, 2), (2, 2)),
        ((3, 3), 2, (4, 4), (4, 4)),
        ((5, 3), 1, (4, 6), (2, 6)),
        ((1, 3), 1, (0, 3), (1, 3)),
    ],
)
def test_shape_and_weights_stay(kernel, stride, padding, dilation, groups, bias) -> None:
    layer = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups, bias)
    graph = graph_of(layer)
    site = site_of(graph)
    assert site.needs == "labels"
    edited = named(NAME).apply(graph, site)
    dense = edited.layer_as(edited.output, nn.Conv2d)
    assert dense is not None
    assert (dense.dilation, dense.stride) == ((1, 1), layer.stride)
    assert torch.equal(dense.weight, layer.weight)
    x = torch.randn(2, 8, 24, 32)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride, dense.padding, 1, groups)
    torch.testing.assert_close(edited(x), expected)
    assert edited(x).shape == graph(x).shape


def test_a_kernel_of_one_has_no_holes() -> None:
    assert named(NAME).find(graph_of(nn.Conv2d(8, 8, 1, dilation=3))).sites == ()


@pytest.mark.parametrize("padding", [0, 1])
def test_without_padding_to_give_back_there_is_no_counterpart(padding: int) -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=padding, dilation=4))
    found = named(NAME).find(graph)
    assert found.sites == ()
    assert "padding" in found.refusals[0].reason


def test_shared_weights_are_refused() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
    found = named(NAME).find(graph_of(layer, nn.ReLU(), layer))
    assert found.sites == ()
    assert all("shared" in refusal.reason for refusal in found.refusals)


def test_a_convolution_without_dilation_is_left_alone() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=2, dilation=2))
    site = site_of(graph)
    with pytest.raises(Unsupported):
        named(NAME).apply(graph_of(nn.Conv2d(8, 8, 3, padding=1)), site)


@pytest.mark.parametrize("amounts", [(4, 4, 4, 4), (5, 4, 6, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_by_a_layer_before_counts(amounts: tuple[int, int, int, int], stride: int) -> None:
    layer = nn.Conv2d(8, 8, 3, stride, dilation=4)
    graph = graph_of(nn.ReLU(), ops.Pad(amounts), layer, nn.ReLU())
    site = site_of(graph)
    assert site.layers == ("layer_1", "layer_2")
    edited = named(NAME).apply(graph, site)
    assert edited.shape(edited.output) == graph.shape(graph.output)
    x = torch.rand(1, 8, 24, 32)
    left, right, top, bottom = (amount - 3 for amount in amounts)
    padded = nn.functional.pad(x, (left, right, top, bottom))
    expected = nn.functional.conv2d(padded, layer.weight, layer.bias, stride).relu()
    torch.testing.assert_close(edited(x), expected)


def test_an_even_kernel_gives_back_more_at_its_end() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 2, padding=2, dilation=2))
    site = site_of(graph)
    edited = named(NAME).apply(graph, site)
    assert edited.shape(edited.output) == graph.shape(graph.output)


def smooth(channels: int = 8, blurs: int = 3) -> torch.Tensor:
    """Values whose neighbours are alike, as those of a network's maps are."""
    row = torch.tensor([0.25, 0.5, 0.25])
    blur = torch.outer(row, row).repeat(channels, 1, 1, 1)
    x = torch.randn(4, channels, 48, 64)
    for _ in range(blurs):
        x = nn.functional.conv2d(x, blur, padding=1, groups=channels)
    return x / x.std()


def error(new: nn.Module | Graph, old: nn.Module | Graph, x: torch.Tensor) -> float:
    """Of the variance, inside the edges."""
    with torch.no_grad():
        given, wanted = new(x)[..., 8:-8, 8:-8], old(x)[..., 8:-8, 8:-8]
    return float((given - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), (2, 2)), ((3, 3), (3, 3)), ((1, 3), (1, 2))])
def test_a_cascade_comes_near_where_neighbours_are_alike(groups, kernel, dilation) -> None:
    torch.manual_seed(0)
    padding = tuple(spread * (taps - 1) // 2 for taps, spread in zip(kernel, dilation, strict=True))
    layer = nn.Conv2d(8, 8, kernel, 1, padding, dilation, groups)
    dense = nn.Conv2d(8, 8, kernel, padding=tuple(taps // 2 for taps in kernel), groups=groups)
    dense.load_state_dict(layer.state_dict())
    x = smooth()
    assert error(cascade(layer), layer, x) < min(0.15, 0.5 * error(dense, layer, x))


def test_what_two_kernels_make_is_found_again() -> None:
    """A kernel with holes that is exactly the product of two without: 1 − z⁴ = (1 − z²)(1 + z²)."""
    layer = nn.Conv2d(1, 1, (1, 3), padding=(0, 2), dilation=(1, 2), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3))
    assert error(cascade(layer), layer, smooth(1, 0)) < 1e-3


def aspp(rates: tuple[int, ...] = (2, 4, 6), size: tuple[int, int] = (24, 32)) -> nn.Module:
    """Branches of several rates and one that sees the mean, joined and mixed."""

    class Aspp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.point = nn.Conv2d(8, 8, 1), nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU())
            self.rates = nn.ModuleList(
                nn.Sequential(nn.Conv2d(8, 4, 3, 1, rate, rate, bias=False), nn.BatchNorm2d(4), nn.ReLU())
                for rate in rates
            )
            self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), ops.Resize(size))
            self.join, self.mix = ops.Concat(), nn.Sequential(nn.Conv2d(8 + 4 * len(rates), 6, 1), nn.ReLU())
            self.skip, self.add, self.last = nn.Conv2d(8, 6, 1), ops.Add(), nn.Conv2d(6, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            branches = [self.point(x), *(branch(x) for branch in self.rates), self.mean(x)]
            return self.last(self.add(self.mix(self.join(*branches)), self.skip(x)))

    return Aspp()


def test_all_branches_of_aspp_are_pooled_once() -> None:
    graph = edit.trace(aspp().eval(), (1, 8, 24, 32), "net")
    together = [site for site in named(NAME).find(graph).sites if len(site.layers) > 4]
    assert [site.variant for site in together] == ["1/2 resolution", "1/4 resolution"]
    assert {(site.source, site.target) for site in together} == {("stem", "mix_1")}
    edited = named(NAME).apply(graph, together[0])
    layers = [edited.layer(node) for node in edited.layers()]
    assert sum(isinstance(layer, nn.AvgPool2d) for layer in layers) == 1
    rates = [layer.dilation[0] for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert rates == [1, 2, 3, 1]
    assert edited.shape(edited.node("mix_1")) == graph.shape(graph.node("mix_1"))


def test_pooling_commutes_with_a_dilated_convolution() -> None:
    """P(W ∗_d x) = W ∗_{d/n} P(x): the only loss is what is finer than n pixels."""
    torch.manual_seed(0)
    graph = edit.trace(nn.Sequential(nn.Conv2d(8, 6, 3, padding=4, dilation=4)).eval(), (1, 8, 48, 64), "net")
    for n in (2, 4):
        edited = named(NAME).apply(graph, site_of(graph, Form("low resolution", n)))
        before_resize = edited.module.get_submodule(edited.output.args[0].target)
        x = torch.randn(1, 8, 48, 64)
        pooled = nn.functional.avg_pool2d(x, n)
        inside = (..., slice(4, -4), slice(4, -4))
        torch.testing.assert_close(before_resize(pooled)[inside], nn.functional.avg_pool2d(graph(x), n)[inside])
        assert error(edited, graph, smooth(blurs=2 * n * n)) < 0.15


class Stage(nn.Module):
    """Two residual blocks with dilation, as networks have them whose last stride became dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 2, 2), nn.ReLU(), nn.Conv2d(4, 8, 1))
            for _ in range(2)
        )
        self.adds = nn.ModuleList(ops.Add() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block, add in zip(self.blocks, self.adds, strict=True):
            x = add(x, block(x))
        return self.last(x)


def test_a_dilated_stage_is_one_part() -> None:
    graph = edit.trace(Stage().eval(), (1, 8, 24, 32), "net")
    part = max((site for site in named(NAME).find(graph).sites), key=lambda site: len(site.layers))
    assert {"blocks_0_0", "blocks_0_2", "adds_0", "blocks_1_2", "adds_1"} <= set(part.layers)
    edited = named(NAME).apply(graph, part)
    assert edited.shape(edited.output) == graph.shape(graph.output)


def test_variants_say_what_they_need() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.ReLU())
    needs = {site.settings: site.needs for site in named(NAME).find(graph).sites}
    assert needs == {NO_HOLES: "labels", CASCADE: "images", Form("low resolution", 2): "images"}


def test_odd_maps_are_pooled_where_the_runtime_pools_alike() -> None:
    """Of 17 pixels, means of 2 and of 3 miss one at the end, as TFLite's SAME does; means of 4 miss three."""
    layer = nn.Conv2d(8, 8, 3, padding=12, dilation=12)
    for side, fractions in ((17, ["1/2 resolution", "1/3 resolution"]), (24, ["1/2 resolution", "1/4 resolution"])):
        graph = edit.trace(nn.Sequential(layer).eval(), (1, 8, side, side), "net")
        lowered = [site for site in named(NAME).find(graph).sites if "resolution" in site.variant]
        assert [site.variant for site in lowered] == fractions
        for site in lowered:
            edited = named(NAME).apply(graph, site)
            names = {name for operator in writer.serialise(edited).covers.values() for name in operator}
            assert {node.name for node in edited.layers()} <= names  # slimseg's own writer, not litert-torch
