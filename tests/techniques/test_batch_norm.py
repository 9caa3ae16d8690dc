"""Batch norms that start as close as constants can be to the norms that they replace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.graph import edit, fold, ops
from slimseg.techniques.batch_norm import BatchNorm, fitted
from slimseg.training.normalisation import recalibrate

DIMS = [(1,), (1, 2, 3), (2, 3)]


def network(dims=(1,), *behind: nn.Module):
    torch.manual_seed(0)
    affine = ops.Affine(torch.rand(8, 1, 1) + 0.5, torch.randn(8, 1, 1))
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), ops.Normalise(dims, 1e-5), affine, *behind, nn.Conv2d(8, 4, 1))
    return edit.trace(nn.Sequential(*layers).eval(), (1, 3, 12, 16))


def test_no_scale_and_shift_are_closer():
    torch.manual_seed(0)
    x = torch.randn(4, 50) * torch.tensor([0.1, 1, 5, 0]).reshape(4, 1) + 3
    y = x.square() + torch.randn(4, 50)
    result = fitted(x, y)(x.reshape(1, 4, 5, 10)).reshape(4, 50)
    for mine, given, wanted in zip(result.detach(), x, y, strict=True):
        line = torch.stack([given, torch.ones_like(given)], 1)
        closest = line @ torch.linalg.lstsq(line, wanted, driver="gelsd").solution
        torch.testing.assert_close(mine, closest, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("dims", DIMS)
def test_the_norm_is_gone_and_the_values_are_close(dims):
    graph = network(dims)
    (site,) = BatchNorm().find(graph).sites
    edited = BatchNorm().apply(graph, site)
    folded = fold.fold_scales(edited)
    assert [type(folded.layer(node)).__name__ for node in folded.layers()] == ["Conv2d", "ReLU", "Conv2d"]
    x = torch.randn(1, 3, 12, 16)
    with torch.no_grad():
        error = (edited(x) - graph(x)).square().mean() / graph(x).var()
    assert error < 0.2


def test_recovery_measures_its_statistics_on_images():
    graph = network()
    edited = BatchNorm().apply(graph, BatchNorm().find(graph).sites[0])
    (norm,) = (layer for layer in edited.module.modules() if isinstance(layer, nn.BatchNorm2d))
    before = norm.running_var.clone()
    recalibrate(edited.module, [10 * torch.randn(2, 3, 12, 16)])
    assert torch.all(norm.running_var > 10 * before)


def test_the_part_that_is_timed_holds_the_layers_that_it_is_folded_into():
    (site,) = BatchNorm().find(network()).sites
    assert (site.source, site.target) == ("layer_1", "layer_4")
    (site,) = BatchNorm().find(network((1,), nn.GELU())).sites
    assert (site.source, site.target) == ("layer_1", "layer_3")


def test_norms_of_tokens_and_of_few_pixels_stay():
    tokens = nn.Sequential(ops.Reshape((1, 192, 3)), ops.Normalise((2,), 1e-5))
    few = nn.Sequential(nn.AvgPool2d(4), ops.Normalise((1,), 1e-5))
    assert not BatchNorm().find(edit.trace(tokens, (1, 3, 12, 16))).sites
    found = BatchNorm().find(edit.trace(few, (1, 3, 12, 12)))
    assert not found.sites
    assert "3x3 pixels" in found.refusals[0].reason
