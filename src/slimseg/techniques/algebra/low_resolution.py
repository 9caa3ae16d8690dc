"""A part of a network at a fraction of its resolution: pooled before, resized after, with its dilations divided.

    Given   y = f(x),          f convolutions of stride 1 that keep the size, channelwise layers, sums, concatenations,
                               norms, attention, branches that read the mean of the whole map; x and y of H×W
    Result  y ≈ U(f'(P(x))),   P the mean of n×n pixels, U the bilinear resize back, f' the same weights with every
                               dilation d divided by n (rounded, at least 1)

Let B be the mean over n×n pixels at every pixel, so that P takes every n-th of B's values. A convolution commutes with
B, and taps that lie d apart at full resolution lie d/n apart on every n-th pixel:

    P(W ∗_d x) = W ∗_{d/n} P(x)        exactly if n divides d, except at the edges

So a dilated convolution loses only the details of its output that are finer than n pixels. The receptive field of other
convolutions grows n-fold, which training has to make up for. MACs fall to 1/n². If n does not divide H or W, the last
means are over fewer pixels, and the resize back is off by less than one of them.
Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", 2016, section 2; Wu et al., "FastFCN", 2019,
section 3.3, replaces dilated stages by strided ones for the same reason.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import pair
from slimseg.techniques.algebra.channelwise import is_channelwise

_JOINS = (ops.Add, ops.Subtract, ops.Multiply, ops.Maximum, ops.Minimum, ops.Concat)


def is_dilated(layer: nn.Module | None) -> bool:
    """Whether a convolution's taps lie more than a pixel apart."""
    return isinstance(layer, nn.Conv2d) and any(
        spread > 1 and taps > 1 for spread, taps in zip(pair(layer.dilation), pair(layer.kernel_size), strict=True)
    )


def part_behind(graph: Graph, source: fx.Node) -> list[fx.Node]:
    """The layers after `source` that could work at a lower resolution, up to where their dilated branches have joined.

    They read only `source` and each other, and only the value of the last is read outside. Empty if none is dilated.
    """
    inside: set[fx.Node] = set()
    run: list[fx.Node] = []
    length = dilated = 0
    node = source.next
    while node.op == "call_module":
        reads = node.all_input_nodes
        if all(each is source or each in inside for each in reads) and fits(graph, node, source):
            inside.add(node)
            run.append(node)
            if _open_values(run, inside) == {node}:
                count = sum(is_dilated(graph.layer(each)) for each in run)
                follows = length == len(run) - 1 and length > 0 and _is_pointwise(graph, node)
                if count > dilated or follows:
                    length, dilated = len(run), count
        elif any(each in inside for each in reads):
            break  # a layer outside the part reads a value inside it
        node = node.next
    return run[:length]


def fits(graph: Graph, node: fx.Node, source: fx.Node) -> bool:
    """Whether a layer can work at any resolution, and gives a map of the source's size or of one pixel."""
    shape, full = graph.shape(node), graph.shape(source)[2:]
    if len(shape) != 4 or shape[2:] not in (full, (1, 1)) or edit.shared_with(graph, node):
        return False
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return graph.shape(node.all_input_nodes[0])[2:] == shape[2:] and keeps_size(layer)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return shape[2:] == (1, 1)
    if isinstance(layer, ops.Reduce):
        return layer.keepdim and {dim % 4 for dim in layer.dims} == {2, 3}
    if isinstance(layer, ops.Resize):
        return graph.shape(node.all_input_nodes[0])[2:] == (1, 1)
    if isinstance(layer, ops.Concat | ops.Slice):
        return layer.dim == 1
    if isinstance(layer, ops.Attention):
        return layer.bias is None and layer.mask is None and _are_maps(graph, node)
    if isinstance(layer, ops.Normalise):
        return True
    return isinstance(layer, _JOINS) or is_channelwise(graph, node)


def _are_maps(graph: Graph, node: fx.Node) -> bool:
    return all(len(graph.shape(each)) == 4 for each in node.all_input_nodes)


def keeps_size(layer: nn.Conv2d) -> bool:
    """Whether a convolution has stride 1 and "same" padding on every side."""
    if isinstance(layer.padding, str) or pair(layer.stride) != (1, 1):
        return False
    sides = zip(pair(layer.kernel_size), pair(layer.dilation), pair(layer.padding), strict=True)
    return all(2 * padding == spread * (taps - 1) for taps, spread, padding in sides)


def at_fraction(graph: Graph, source: fx.Node, nodes: Sequence[fx.Node], n: int) -> fx.GraphModule:
    """The block for `edit.replace`: the layers `nodes`, which begin at `source`'s value, at 1/n of their resolution."""
    _, _, height, width = graph.shape(source)
    small = (-(-height // n), -(-width // n))
    root, block = nn.Module(), fx.Graph()

    def add(name: str, layer: nn.Module, *arguments: fx.Node) -> fx.Node:
        root.add_module(name, layer)
        return block.call_module(name, arguments)

    values = {source: add("pool", nn.AvgPool2d(n, ceil_mode=True, count_include_pad=False), block.placeholder("x"))}
    for index, node in enumerate(nodes):
        arguments = [values[each] for each in node.args if isinstance(each, fx.Node)]
        values[node] = add(f"{index}", _smaller(graph, node, n, small), *arguments)
    block.output(add("resize", ops.Resize((height, width)), values[nodes[-1]]))
    return fx.GraphModule(root, block)


def _smaller(graph: Graph, node: fx.Node, n: int, size: tuple[int, int]) -> nn.Module:
    layer = copy.deepcopy(graph.module.get_submodule(str(node.target)))
    if isinstance(layer, nn.Conv2d):
        down, across = (max(1, round(spread / n)) for spread in pair(layer.dilation))
        layer.dilation = (down, across)
        rows, columns = pair(layer.kernel_size)
        layer.padding = (down * (rows - 1) // 2, across * (columns - 1) // 2)
        # torch keeps a copy of the padding for padding modes other than zeros
        layer._reversed_padding_repeated_twice = [layer.padding[1]] * 2 + [layer.padding[0]] * 2
    if isinstance(layer, ops.Resize):
        layer.size = size
    return layer


def _open_values(run: Sequence[fx.Node], inside: set[fx.Node]) -> set[fx.Node]:
    """The nodes of a run whose values are read by nodes that are not inside (yet)."""
    return {each for each in run if not inside.issuperset(each.users)}


def _is_pointwise(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer(node)
    return is_channelwise(graph, node) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
