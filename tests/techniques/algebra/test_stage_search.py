"""What counts as a stage, and where it begins and ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimseg import models
from slimseg.blocks.convolution import ConvNorm
from slimseg.blocks.inverted_residual import InvertedResidual
from slimseg.blocks.residual import BasicBlock
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques.algebra.stage_search import Stage, between, stages


def graph(module: nn.Module, size: tuple[int, int] = (32, 48), channels: int = 3) -> Graph:
    torch.manual_seed(0)
    return edit.trace(module.eval(), (1, channels, *size))


def ends(found: list[Stage]) -> list[tuple[str, str, int]]:
    return [(stage.source.name, stage.target.name, stage.convolutions) for stage in found]


class UNet(nn.Module):
    """Two levels: double convolutions as encoder and decoder, pooling, a transposed convolution, a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 3, 2)
        self.down = nn.Sequential(ConvNorm(8, 8, 3), ConvNorm(8, 8, 3))
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(ConvNorm(8, 16, 3), ConvNorm(16, 16, 3))
        self.up, self.concat = nn.ConvTranspose2d(16, 8, 2, 2), ops.Concat()
        self.decoder = nn.Sequential(ConvNorm(16, 8, 3), ConvNorm(8, 8, 3))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stem(x))
        y = self.up(self.bottom(self.pool(x)))
        return self.head(self.decoder(self.concat(y, x)))


def test_a_unet_has_three():
    found = ends(stages(graph(UNet())))
    assert found[1:] == [("pool", "bottom_1_activation", 2), ("concat", "decoder_1_activation", 2)]
    # the stem's stride begins the first
    assert found[0][1:] == ("down_1_activation", 3)


def test_residual_blocks_of_one_resolution_are_one_stage_and_a_stride_begins_it():
    net = nn.Sequential(
        BasicBlock(8, 8), BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16), nn.Conv2d(16, 2, 1)
    )
    found = stages(graph(net, channels=8))
    assert [stage.convolutions for stage in found] == [4, 4]
    first, second = found
    assert first.target is second.source
    assert (first.target.name, second.target.name) == ("layer_1_activation", "layer_3_activation")
    assert len(second.layers) == 16


def test_inverted_residuals_begin_and_end_between_blocks():
    net = nn.Sequential(
        ConvNorm(3, 16, 3, 2), InvertedResidual(16, 24, 2), InvertedResidual(24, 24), InvertedResidual(24, 40, 2),
        InvertedResidual(40, 40), nn.Conv2d(40, 2, 1),
    )  # fmt: skip
    assert ends(stages(graph(net))) == [("layer_0_activation", "layer_2_add", 2), ("layer_2_add", "layer_4_add", 2)]


class Tapped(nn.Module):
    """Something reads a value within the run."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNorm(8, 8, 3) for _ in range(4))
        self.concat, self.head = ops.Concat(), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        early = self.layers[1](self.layers[0](x))
        return self.head(self.concat(early, self.layers[3](self.layers[2](early))))


def test_what_is_read_from_outside_ends_a_stage():
    found = stages(graph(Tapped(), channels=8))
    taken = [node.name for stage in found for node in stage.layers]
    assert len(taken) == len(set(taken))
    assert all(user in stage.layers for stage in found for node in stage.layers[:-1] for user in node.users), (
        "nothing outside reads a layer within"
    )
    assert all(
        each is stage.source or each in stage.layers for stage in found for node in stage.layers
        for each in node.all_input_nodes
    )  # fmt: skip
    assert sum(stage.convolutions for stage in found) == 4


def test_the_classifier_is_in_no_stage():
    layers = (ConvNorm(8, 8, 3), ConvNorm(8, 8, 3), nn.Conv2d(8, 2, 3, padding=1), nn.Softmax(1))
    (stage,) = stages(graph(nn.Sequential(*layers), channels=8))
    assert (stage.source.op, stage.target.name, stage.convolutions) == ("placeholder", "layer_1_activation", 2)


def test_one_convolution_is_no_stage():
    assert stages(graph(nn.Sequential(ConvNorm(8, 8, 3), nn.Conv2d(8, 2, 1)), channels=8)) == []


def test_every_stage_is_found_again_from_its_ends():
    for block in ("residual", "shuffle", "inverted residual", "separable"):
        net = models.build(3, (64, 64), block)
        for stage in stages(net):
            assert between(net, stage.source.name, stage.target.name) == stage
            edit.extract(net, stage.source.name, stage.target.name)
    assert between(net, "nothing", stage.target.name) is None
    assert between(net, stage.source.name, "nothing") is None
