"""Rules shared by operators of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape, pair


def from_the_front(dim: int) -> int:
    """Check that a dimension is counted from the front: rules compare with 1 and would miss -3 for the same dimension.

    Raises:
        ValueError: the dimension is negative.
    """
    if dim < 0:
        raise ValueError(f"dimension {dim} is negative: give 0 (batch), 1 (channels), 2 or 3")
    return dim


# Shapes


def same_shape(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """The shape of the first input."""
    return shapes[0]


def broadcast_shape(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """The shape of all inputs broadcast against each other.

    Raises:
        ValueError: they do not broadcast.
    """
    try:
        return np.broadcast_shapes(*shapes)  # torch's own imports sympy, which takes a second
    except ValueError as error:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit together") from error


def require_channels(shape: Shape, channels: int) -> None:
    """Raise ValueError unless `shape` is a map (N, C, H, W) with C = `channels`."""
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"it needs {channels} channels, not {shape}")


def window_counts(layer: Any, shape: Shape, dilation: Any = 1) -> tuple[int, int]:
    """(rows, columns): how many windows of a convolution or pooling fit into a map (N, C, H, W)."""
    ceil = getattr(layer, "ceil_mode", False)
    sizes = []
    settings = zip(
        shape[2:], pair(layer.kernel_size), pair(layer.stride), pair(layer.padding), pair(dilation), strict=True
    )
    for length, kernel, stride, padding, spread in settings:
        room = length + 2 * padding - spread * (kernel - 1) - 1
        count = (room + (stride - 1 if ceil else 0)) // stride + 1
        # torch drops the last window if it would start in the padding
        if ceil and (count - 1) * stride >= length + padding:
            count -= 1
        sizes.append(count)
    return sizes[0], sizes[1]


# Channels


def same_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels:
    """Channel k of the output is channel k of the input, and the layer has no weights for single channels."""
    return trace.source(node)


def held_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels:
    """Channel k of the output is channel k of the input, and the layer has weights for each channel."""
    trace.held[node.name] = trace.source(node)
    return trace.source(node)


def constants(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a layer, by name."""
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def cut_constants(layer: nn.Module, dropped: list[int]) -> None:
    """Remove the channels at positions `dropped` from constants that broadcast to (C, H, W)."""
    for name, value in constants(layer).items():
        if value.dim() >= 3 and value.shape[-3] > 1:
            kept = [position for position in range(value.shape[-3]) if position not in set(dropped)]
            cut = value.detach().index_select(value.dim() - 3, torch.tensor(kept))
            setattr(layer, name, nn.Parameter(cut) if isinstance(value, nn.Parameter) else cut)


def constant_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels | None:
    """`same_channels` if the layer's constants are single numbers, `held_channels` if they broadcast to (C, H, W)."""
    before, after = (trace.shape(each) for each in (node.all_input_nodes[0], node))
    if all(value.numel() == 1 for value in constants(layer).values()) and before == after:
        return trace.source(node)
    if len(after) != 4 or before[1] != after[1]:
        return None
    return held_channels(trace, node, layer)
