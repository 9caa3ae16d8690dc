"""A transposed convolution and the crop after it are one layer, as PyTorch's padding and output padding are."""

from __future__ import annotations

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import is_read_once
from slimseg.graph.shapes import pair


def merge(graph: Graph) -> None:
    """In place."""
    for node in list(graph.layers()):
        pad = graph.layer_as(node, ops.Pad)
        if pad is None or max(pad.padding) > 0 or any(pad.channels):
            continue
        source = producer(node)
        layer = graph.layer_as(source, nn.ConvTranspose2d)
        is_shared = sum(other.target == source.target for other in graph.layers()) > 1
        if type(layer) is nn.ConvTranspose2d and is_read_once(source) and not is_shared:
            _merge(graph, node, layer, pad, source)


def _merge(graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d, pad: ops.Pad, source: fx.Node) -> None:
    left, right, top, bottom = (-amount for amount in pad.padding)
    sides = zip(pair(layer.padding), pair(layer.output_padding), ((top, bottom), (left, right)), strict=True)
    cuts = [(own + before, own - extra + after) for own, extra, (before, after) in sides]
    paddings = [before for before, _ in cuts]
    extras = [max(before - after, 0) for before, after in cuts]
    bottom, right = (max(after - before, 0) for before, after in cuts)
    steps = zip(extras, pair(layer.stride), pair(layer.dilation), strict=True)
    if any(extra >= max(stride, dilation) for extra, stride, dilation in steps):
        return  # torch does not allow as much output padding
    settings = (
        *(layer.in_channels, layer.out_channels, pair(layer.kernel_size), pair(layer.stride), pair(paddings)),
        *(pair(extras), layer.groups, layer.bias is not None, pair(layer.dilation)),
    )
    crop = (0, right, 0, bottom)
    merged = (
        ops.CroppedConvTranspose2d(*settings, device="meta", crop=crop)
        if any(crop)
        else nn.ConvTranspose2d(*settings, device="meta")
    )
    merged.weight, merged.bias = layer.weight, layer.bias
    graph.module.add_module(str(source.target), merged.eval())
    node.replace_all_uses_with(source)
    graph.module.graph.erase_node(node)
    source.meta["shape"] = node.meta["shape"]
