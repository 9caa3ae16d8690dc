"""Bias correction: channel means of a rounded network come back, on images that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg import models
from slimseg.graph import edit, ops
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.quantisation.bias_correction import bias_corrected, on_grid
from slimseg.quantisation.rounding import rounded

SHAPE = (1, 4, 12, 16)


def pictures(count: int, seed: int) -> Tensor:
    """Not centred, as images are: without a mean there is no shift."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE[1:], generator=generator) + torch.rand(count, 4, 1, 1, generator=generator)


def coarse(module: nn.Module) -> nn.Module:
    """One large weight in every filter leaves few steps to the others."""
    for layer in module.modules():
        if isinstance(layer, ops.MIXING):
            layer.weight.data[..., :1] *= 30
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
    return module.eval()


def on_grids(graph: Graph, bits: int = 8) -> Graph:
    result = fold_scales(graph)
    for node in result.layers():
        layer = result.layer(node)
        if isinstance(layer, ops.MIXING):
            setattr(result.module, str(node.target), on_grid(layer, bits))
    return result


@torch.no_grad()
def mean_error(graph: Graph, original: Graph, images: Tensor, bits: int = 8) -> float:
    """Root mean square over output channels of how far the rounded network's mean is off."""
    error = on_grids(graph, bits)(images) - original(images)
    return float(error.transpose(0, 1).flatten(1).mean(1).square().mean().sqrt())


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.pool = nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.flat, self.last = ops.Reshape((1, 8)), nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.flat(self.pool(self.relu(self.first(x)))))


NETWORKS = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(4, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 16, 3, groups=16), nn.PReLU(16),
        nn.Conv2d(16, 6, 1),
    ),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(4, 8, 3, 2, 1, groups=2), nn.Hardswish(), nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2, bias=False)
    ),
    "flat": Flat,
}  # fmt: skip


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_channel_means_come_back_on_other_images(network: str, bits: int):
    torch.manual_seed(0)
    graph = edit.trace(coarse(NETWORKS[network]()), SHAPE)
    result = bias_corrected(graph, pictures(32, seed=1), bits=bits)
    others = pictures(32, seed=2)
    assert mean_error(result, graph, others, bits) < 0.3 * mean_error(graph, graph, others, bits)


def test_only_biases_change():
    torch.manual_seed(0)
    graph = edit.trace(coarse(NETWORKS["convolutions"]()), SHAPE)
    result = bias_corrected(graph, pictures(8, seed=1))
    before, after = fold_scales(graph).module.state_dict(), result.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layer_0.bias", "layer_3.bias", "layer_5.bias"}
    assert [node.name for node in result.layers()] == [node.name for node in fold_scales(graph).layers()]


def test_rounded_values_count():
    torch.manual_seed(0)
    graph = edit.trace(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval(), SHAPE)
    images, narrow = pictures(16, seed=1), (0.0, 0.2)  # clips
    result = bias_corrected(graph, images, {"layer_1": narrow})
    with torch.no_grad():
        values = on_grids(edit.trace(nn.Sequential(graph.module.layer_0, nn.ReLU()), SHAPE))(images)
        clipped = rounded(values, *torch.tensor(narrow))
        shift = on_grid(graph.module.layer_2)(clipped) - graph(images)
    moved = (graph.module.layer_2.bias - result.module.layer_2.bias).detach()
    torch.testing.assert_close(moved, shift.mean((0, 2, 3)), rtol=0.05, atol=0.005)
    assert float(moved.abs().max()) > 0.02


def test_shared_layers_keep_their_biases():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3, padding=1)
    graph = edit.trace(coarse(nn.Sequential(layer, nn.ReLU(), layer, nn.Conv2d(4, 2, 1))), SHAPE)
    result = bias_corrected(graph, pictures(8, seed=1))
    shared, own = (getattr(result.module, name).bias for name in ("layer_0", "layer_3"))
    assert torch.equal(shared, layer.bias)
    assert not torch.equal(own, graph.module.layer_3.bias)


def test_a_network_of_ours():
    torch.manual_seed(0)
    graph = models.build(5, (64, 64), "inverted residual", width=0.5)
    images = [torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    result = bias_corrected(graph, images[0], bits=6)
    assert mean_error(result, graph, images[1], 6) < 0.5 * mean_error(graph, graph, images[1], 6)


def test_one_image_is_corrected_in_full():
    torch.manual_seed(0)
    graph = edit.trace(coarse(NETWORKS["transposed"]()), SHAPE)
    image = pictures(1, seed=1)
    assert mean_error(bias_corrected(graph, image), graph, image) < 1e-4


def test_an_image_unlike_all_others_counts_little():
    torch.manual_seed(0)
    graph = edit.trace(nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval(), SHAPE)
    images = pictures(16, seed=1)
    ranges = {"layer_1": (0.0, float(graph.module.layer_1(graph.module.layer_0(images)).max().detach()))}
    usual = bias_corrected(graph, images, ranges).module.layer_2.bias
    odd = bias_corrected(graph, torch.cat((images, 50 * pictures(1, seed=2))), ranges).module.layer_2.bias
    assert float((odd - usual).abs().max().detach()) < 0.02  # the plain mean moves by far more: it is clipped hard


def test_weights_are_rounded_as_numpy_does():
    layer = nn.Conv2d(1, 2, 1, bias=False)
    layer.weight.data = torch.tensor([[127.0, 0.5, 1.5, -2.5, 0.0]] * 2).reshape(2, 1, 1, 5)
    expected = np.rint(layer.weight.detach().numpy())
    assert np.array_equal(on_grid(layer).weight.detach().numpy(), expected)
