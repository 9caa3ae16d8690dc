"""Pooling with torch's windows. ceil_mode is written as explicit padding, since MIL allows it only if symmetric."""

from __future__ import annotations

from typing import Any

from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph.shapes import pair
from slimseg.graph.vocabulary.pooling import reached_padding, window_means
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var


def max_pool(step: Step, layer: nn.MaxPool2d) -> Var:
    if pair(layer.dilation) != (1, 1):
        raise Unsupported(f"{step.node.name}: Core ML has no dilated max pooling")
    return step.mb.max_pool(x=step.inputs[0], **_windows(layer, _padding(step, layer)), name=step.name)


def average_pool(step: Step, layer: nn.AvgPool2d) -> Var:
    """Average pooling; torch counts the layer's padding as the layer states, but never what ceil_mode adds after it."""
    if layer.divisor_override is not None:
        raise Unsupported(f"{step.node.name}: Core ML's average pooling cannot have a divisor of its own")
    source, padding, own = step.inputs[0], _padding(step, layer), pair(layer.padding)
    beyond = any(padding[2 * side + 1] > own[side] for side in (0, 1))
    counted = layer.count_include_pad
    if counted and beyond and any(own):
        amounts = [own[0], own[0], own[1], own[1]]
        source = step.mb.pad(x=source, pad=amounts, mode="constant", constant_val=0.0, name=step.named("padded"))
        padding = [0, max(0, padding[1] - own[0]), 0, max(0, padding[3] - own[1])]
    return step.mb.avg_pool(
        x=source,
        **_windows(layer, padding),
        exclude_padding_from_average=not counted or beyond,
        name=step.name,
    )


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d, padding: list[int]) -> dict[str, Any]:
    return {
        "kernel_sizes": list(pair(layer.kernel_size)),
        "strides": list(pair(layer.stride)),
        "pad_type": "custom",
        "pad": padding,
    }


def _padding(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> list[int]:
    """[top, bottom, left, right]: the layer's padding; with ceil_mode, how far the windows reach beyond the input."""
    if step.flexible and layer.ceil_mode:
        raise Unsupported(
            f"{step.node.name}: pooling with ceil_mode has no fixed padding at flexible sizes: leave `sizes` out"
        )
    own = pair(layer.padding)
    if not layer.ceil_mode:
        return [own[0], own[0], own[1], own[1]]
    reached = reached_padding(layer, step.input_shapes[0][2:], step.shape[2:])
    return [amount for side in reached for amount in side]


def adaptive_average_pool(step: Step, layer: nn.AdaptiveAvgPool2d) -> Var:
    """The mean of the whole map, average pooling if windows are equal, else products with a matrix on both sides."""
    (height, width), (rows, columns) = step.input_shapes[0][2:], step.shape[2:]
    if (rows, columns) == (1, 1):
        return step.mb.reduce_mean(x=step.inputs[0], axes=[2, 3], keep_dims=True, name=step.name)
    if step.flexible:
        raise Unsupported(
            f"{step.node.name}: pooling to {rows}x{columns} has no fixed windows at flexible sizes: leave `sizes` out"
        )
    if height % rows == 0 and width % columns == 0:
        window = [height // rows, width // columns]
        return step.mb.avg_pool(x=step.inputs[0], kernel_sizes=window, strides=window, pad_type="valid", name=step.name)
    across = step.mb.matmul(
        x=step.inputs[0], y=window_means(width, columns).T.reshape(1, 1, width, columns), name=step.named("across")
    )
    down = window_means(height, rows).reshape(1, 1, rows, height)
    return step.mb.matmul(x=down, y=across, name=step.name)


LOWERINGS: Lowerings = {
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
}
