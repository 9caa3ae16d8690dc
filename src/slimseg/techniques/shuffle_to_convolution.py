"""Depth to space -> transposed convolution, and space to depth -> convolution, exactly, for processors without them.

    Given   y = D(x), depth to space of block b: (b·b·C, H, W) to (C, bH, bW)
    Result  y = K ⊛_b x, transposed convolution of stride b and size b × b, with K[(i·b + j)·C + c, c, i, j] = 1

Every value is multiplied by one, the others by zero, so nothing is rounded. A convolution of stride b with the same
kernel is space to depth. On a CPU this is slower than moving the values. MediaTek's NPU has neither of the two layers;
on Qualcomm's a depth to space that was written as transposes took three times as long as zeros and a convolution
(docs/processors.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site

MOST_WEIGHTS = 1 << 20  # nearly all of them are zeros that the file has to store


class ShuffleToConvolution:
    """Writes depth to space and space to depth as convolutions."""

    name = "depth to space to transposed convolution"
    needs: Needs = "nothing"
    paper = "Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, (ops.DepthToSpace, ops.SpaceToDepth))
            if layer is None:
                continue
            weights = _channels(graph, node) ** 2 * layer.block**4
            if weights > MOST_WEIGHTS:
                refusals.append(Refusal(self.name, node.name, f"its kernel would have {weights / 1e6:.1f} M weights"))
                continue
            reason = f"a convolution with a kernel of ones and zeros moves its values in blocks of {layer.block}"
            sites.append(Site(self.name, (node.name,), producer(node).name, node.name, self.needs, reason))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.target)
        layer = graph.layer_as(node, (ops.DepthToSpace, ops.SpaceToDepth))
        if layer is None:
            raise Unsupported(f"{site.target} is neither depth to space nor space to depth")
        return edit.replace(graph, [site.source], site.target, _convolution(layer, _channels(graph, node)))


def _channels(graph: Graph, node: fx.Node) -> int:
    """Channels of the large map: behind depth to space, before space to depth."""
    large = node if graph.layer_as(node, ops.DepthToSpace) else producer(node)
    return graph.shape(large)[1]


def _convolution(layer: ops.DepthToSpace | ops.SpaceToDepth, channels: int) -> nn.Sequential:
    block = layer.block
    small = block * block * channels
    result: nn.Conv2d | nn.ConvTranspose2d
    if isinstance(layer, ops.DepthToSpace):
        result = nn.ConvTranspose2d(small, channels, block, block, bias=False)
    else:
        result = nn.Conv2d(channels, small, block, block, bias=False)
    result.weight = nn.Parameter(_kernel(block, channels))
    return nn.Sequential(result)


def _kernel(block: int, channels: int) -> Tensor:
    """Shape (b·b·C, C, b, b): one where a channel of the small map holds that channel and place of the large one."""
    kernel = torch.zeros(block, block, channels, channels, block, block)
    for row in range(block):
        for column in range(block):
            kernel[row, column, :, :, row, column] = torch.eye(channels)
    return kernel.reshape(block * block * channels, channels, block, block)
