"""Stages become blocks that keep the shape, start near the old function, and learn the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.blocks.convolution import ConvNorm
from slimseg.blocks.residual import BasicBlock
from slimseg.demonstration.network import INPUT_SIZE, MEAN, STD, load_trained
from slimseg.demonstration.scenes import render
from slimseg.errors import Unsupported
from slimseg.graph import costs, edit
from slimseg.graph.features import Features
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.graph.moments import Moments
from slimseg.results import Refusal
from slimseg.techniques.algebra.matching import noise
from slimseg.techniques.stages import BUILDERS, StageBlocks
from slimseg.techniques.technique import Site
from slimseg.training import losses

TECHNIQUE = StageBlocks()


def graph(*layers: nn.Module, size: tuple[int, int] = (32, 48)) -> Graph:
    """A network whose batch norms have the statistics of what they are given, as trained ones have."""
    torch.manual_seed(0)
    net = nn.Sequential(*layers)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    with torch.no_grad():
        net.train()(torch.randn(8, 3, *size))
    return edit.trace(net.eval(), (1, 3, *size))


def double() -> Graph:
    """A double convolution between a stem and a classifier."""
    return graph(ConvNorm(3, 32, 3, 2), nn.MaxPool2d(2), ConvNorm(32, 24, 3), ConvNorm(24, 24, 3), nn.Conv2d(24, 4, 1))


def residual_stage() -> Graph:
    stem = (ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2))
    return graph(*stem, BasicBlock(16, 32, 2), BasicBlock(32, 32), nn.MaxPool2d(2), nn.Conv2d(32, 4, 1))


@pytest.fixture(scope="module")
def trained() -> tuple[Graph, Tensor]:
    """The U-Net that ships in the package, and scenes (12, 3, 96, 128) as it wants them."""
    street = edit.at_input_size(slimseg.load(load_trained(), INPUT_SIZE, mean=MEAN, std=STD), (96, 128))
    scenes = np.stack([render(seed, (96, 128))[0] for seed in range(12)])
    return street, (torch.from_numpy(scenes).permute(0, 3, 1, 2).float() - MEAN) / STD


def image() -> Tensor:
    return torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def sites(network: Graph) -> dict[str, Site]:
    """Those of the first stage, by variant."""
    found = TECHNIQUE.find(network).sites
    return {site.variant: site for site in found if site.target == found[0].target}


def refusals(network: Graph) -> tuple[Refusal, ...]:
    return TECHNIQUE.find(network).refusals


@pytest.mark.parametrize("variant", BUILDERS)
@pytest.mark.parametrize("make", [double, residual_stage])
def test_shape_and_cost(make, variant):
    network = make()
    site = sites(network)[variant]
    edited = TECHNIQUE.apply(network, site)
    assert edited.shape(edited.node(site.target)) == network.shape(network.node(site.target))
    assert not set(site.layers[:-1]) & {node.name for node in edited.layers()}
    old, new = (costs.total(edit.extract(each, site.source, site.target)).macs for each in (network, edited))
    assert new <= 0.4 * old
    assert f"{old / new:.1f}x fewer MACs" in site.reason
    assert edited(image()).isfinite().all()


@pytest.mark.parametrize("variant", BUILDERS)
def test_it_learns_to_mimic_the_old_stage(trained, variant):
    """It starts no farther than the features' own mean and spread, and 40 steps leave a fraction of that."""
    network, images = trained
    site = sites(network)[variant]
    part = edit.extract(TECHNIQUE.apply(network, site), site.source, site.target)
    with torch.no_grad():
        _, known = Features(network.module, (site.source, site.target))(images)
    source, target = known[site.source], known[site.target]
    unseen = slice(8, 12)

    def error() -> float:
        with torch.no_grad():
            return losses.mimicry(part(source[unseen]), target[unseen]).item()

    before = error()
    optimiser = torch.optim.AdamW(part.module.parameters(), 3e-3)
    for step in range(40):
        batch = slice(2 * (step % 4), 2 * (step % 4) + 2)
        loss = losses.mimicry(part(source[batch]), target[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before < 2.0, "what a block of the right mean and variance has that knows nothing else"
    assert error() < 0.5 * before, "on images that it was not trained on"


@pytest.mark.parametrize("variant", BUILDERS)
def test_it_starts_nearer_than_a_block_with_random_weights(trained, variant, monkeypatch):
    network, images = trained
    site = sites(network)[variant]

    def error() -> float:
        with torch.no_grad():
            _, known = Features(network.module, (site.source, site.target))(images)
            part = edit.extract(TECHNIQUE.apply(network, site), site.source, site.target)
            return losses.mimicry(part(known[site.source]), known[site.target]).item()

    fitted = error()
    monkeypatch.setattr("slimseg.techniques.stages.match", lambda *_: None)
    assert fitted < 0.5 * error()


def test_the_same_edit_each_time_and_the_generator_untouched():
    network = double()
    site = sites(network)["residual"]
    torch.manual_seed(7)
    first = TECHNIQUE.apply(network, site)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(first(image()), TECHNIQUE.apply(network, site)(image()))


def test_a_stage_without_batch_norm_starts_within_reason(trained):
    """As converters leave it, folded: variances are rough then."""
    network, images = fold_scales(trained[0]), trained[1]
    site = sites(network)["residual"]
    with torch.no_grad():
        _, known = Features(network.module, (site.source, site.target))(images)
        part = edit.extract(TECHNIQUE.apply(network, site), site.source, site.target)
        assert losses.mimicry(part(known[site.source]), known[site.target]) < 8.0


def test_a_stage_that_ends_linearly_stays_linear_and_shuffle_refuses():
    stem, last = (ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2)), ConvNorm(24, 24, 3, activation=None)
    network = graph(*stem, ConvNorm(16, 24, 3), last, nn.MaxPool2d(2), nn.Conv2d(24, 4, 1))
    found = sites(network)
    assert set(found) == {"residual", "inverted residual"}
    edited = TECHNIQUE.apply(network, found["residual"])
    _, values = Features(edited.module, (found["residual"].target,))(image())
    assert values[found["residual"].target].min() < 0


REFUSED = {
    "dilated": (
        lambda: graph(
            ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.ReLU(),
            ConvNorm(16, 16, 3), nn.Conv2d(16, 2, 1),
        ),
        "dilated",
    ),
    "few channels": (
        lambda: graph(ConvNorm(3, 4, 3, 2), nn.MaxPool2d(2), ConvNorm(4, 4, 3), ConvNorm(4, 4, 3), nn.Conv2d(4, 2, 1)),
        "4 to 4 channels are too few",
    ),
    "cheap already": (
        lambda: graph(
            ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2), ConvNorm(16, 16, 3, groups=16), ConvNorm(16, 16, 3, groups=16),
            nn.Conv2d(16, 2, 1),
        ),
        "already depthwise",
    ),
    "small": (
        lambda: graph(
            ConvNorm(3, 128, 3), ConvNorm(128, 8, 9, 2), nn.MaxPool2d(2), ConvNorm(8, 8, 3), ConvNorm(8, 8, 3),
            nn.MaxPool2d(2), nn.Conv2d(8, 2, 1),
        ),
        "of the network's MACs",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusals(make, reason):
    network = make()
    found = TECHNIQUE.find(network)
    assert not found.sites
    assert reason in " ".join(each.reason for each in found.refusals)


def test_shared_layers_are_refused():
    shared = ConvNorm(16, 16, 3)
    network = graph(ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2), shared, shared, nn.Conv2d(16, 2, 1))
    assert "shared with" in " ".join(each.reason for each in refusals(network))


def test_a_site_whose_stage_has_changed_is_refused():
    network = double()
    site = sites(network)["residual"]
    with pytest.raises(Unsupported, match="is not a stage"):
        TECHNIQUE.apply(TECHNIQUE.apply(network, site), site)


def test_noise_has_the_moments_it_is_given():
    given = Moments(torch.tensor([1.0, -2.0, 0.0]), torch.tensor([4.0, 1.0, 1e-9]))
    value = noise(given, (64, 64))
    torch.testing.assert_close(value.mean((0, 2, 3)), given.mean, atol=0.1, rtol=0.1)
    torch.testing.assert_close(value.var((0, 2, 3))[:2], given.variance[:2], atol=0.1, rtol=0.5)
    assert value.var((0, 2, 3))[2] > 0.1, "a channel thought to be dead may surprise"
    neighbours = torch.corrcoef(torch.stack((value[:, 0, :, 1:].flatten(), value[:, 0, :, :-1].flatten())))[0, 1]
    assert 0.3 < neighbours < 0.9
