"""Rules that operators of several kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.shapes import Shape, pair


def from_the_front(dim: int) -> int:
    """One number for one dimension: rules that ask for dimension 1 would not know -3 for the same.

    Raises:
        ValueError: it is counted from the end.
    """
    if dim < 0:
        raise ValueError(f"dimension {dim} is counted from the end: give it as 0 (batch), 1 (channels), 2 or 3")
    return dim


# Shapes


def same_shape(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """That of the first input."""
    return shapes[0]


def broadcast_shape(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """That of all inputs, broadcast against each other."""
    try:
        return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit each other") from error


def require_channels(shape: Shape, channels: int) -> None:
    """Raise ValueError unless a value is a map of so many channels."""
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"it takes {channels} channels, not {shape}")


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
        # torch drops a last window that would start in the padding
        if ceil and (count - 1) * stride >= length + padding:
            count -= 1
        sizes.append(count)
    return sizes[0], sizes[1]


# Channels


def same_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels:
    """Channel k of the output is channel k of the input, and the layer has nothing of its own for it."""
    return trace.source(node)


def held_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels:
    """Channel k of the output is channel k of the input, and the layer has values of its own for it."""
    trace.held[node.name] = trace.source(node)
    return trace.source(node)


def constants(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a layer, by name."""
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def cut_constants(layer: nn.Module, dropped: list[int]) -> None:
    """Take channels out of constants that broadcast to (C, H, W)."""
    for name, value in constants(layer).items():
        if value.dim() >= 3 and value.shape[-3] > 1:
            kept = [position for position in range(value.shape[-3]) if position not in set(dropped)]
            cut = value.detach().index_select(value.dim() - 3, torch.tensor(kept))
            setattr(layer, name, nn.Parameter(cut) if isinstance(value, nn.Parameter) else cut)


def constant_channels(trace: ChannelTrace, node: fx.Node, layer: nn.Module) -> Channels | None:
    """As `same_channels` or `held_channels`: the layer's constants are single numbers, or broadcast to (C, H, W)."""
    before, after = (trace.shape(each) for each in (node.all_input_nodes[0], node))
    if all(value.numel() == 1 for value in constants(layer).values()) and before == after:
        return trace.source(node)
    if len(after) != 4 or before[1] != after[1]:
        return None
    return held_channels(trace, node, layer)
