"""Groups of nodes that are a single layer in ncnn.

slices       Slice [0:a], Slice [a:b], Slice [b:C] that cover a whole tensor         one Slice with three results
shuffle      Reshape (g, C/g, H, W), Transpose of the first two, Reshape (C, H, W)   one ShuffleChannel
             (Zhang et al., "ShuffleNet", 2018, section 3.1), in NHWC with g and C/g as the last dimensions
"""

from __future__ import annotations

from torch import fx

from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer


def slices(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The Slice nodes, including `node`, that together cover their source without gaps; [] if they do not."""
    source = node.all_input_nodes[0]
    first = graph.layer_as(node, ops.Slice)
    if first is None:
        return []
    pieces: list[tuple[ops.Slice, fx.Node]] = []
    for user in source.users:
        layer = graph.layer_as(user, ops.Slice)
        if layer is not None and layer.dim == first.dim and layer.step == 1:
            pieces.append((layer, user))
    pieces.sort(key=lambda piece: piece[0].start)
    ends = [0, *(layer.stop for layer, _ in pieces)]
    joined = all(layer.start == end for (layer, _), end in zip(pieces, ends, strict=False))
    whole = joined and ends[-1] == graph.shape(source)[first.dim] and len(pieces) > 1
    return [user for _, user in pieces] if whole and first.step == 1 else []


def shuffle(graph: Graph, node: fx.Node) -> tuple[list[fx.Node], int] | None:
    """The three nodes of a channel shuffle that starts at `node`, and its number of groups; None if there is none."""
    transpose = only_consumer(node)
    back = only_consumer(transpose) if transpose is not None else None
    split, swap = graph.layer_as(node, ops.Reshape), graph.layer_as(transpose, ops.Transpose)
    join = graph.layer_as(back, ops.Reshape)
    if split is None or swap is None or join is None or split.channels_last != join.channels_last:
        return None
    assert transpose is not None
    assert back is not None
    before, middle, after = (graph.shape(each) for each in (node.all_input_nodes[0], node, back))
    if len(before) != 4 or len(middle) != 5 or before != after:
        return None
    pixels = before[2:]
    last = split.channels_last
    groups, rest = middle[3:] if last else middle[1:3]
    expected = (1, *pixels, groups, rest) if last else (1, groups, rest, *pixels)
    order = (0, 1, 2, 4, 3) if last else (0, 2, 1, 3, 4)
    if middle != expected or tuple(dim % 5 for dim in swap.dims) != order:
        return None
    return [node, transpose, back], groups
