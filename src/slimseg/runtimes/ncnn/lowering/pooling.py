"""Pooling, with explicit padding on each side, and "valid" windows over the padded input."""

from __future__ import annotations

from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph.shapes import pair
from slimseg.graph.vocabulary.pooling import reached_padding
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map
from slimseg.runtimes.ncnn.net import Net, Param

MAX, AVERAGE = 0, 1
_VALID = 1  # pad_mode: no padding besides the explicit amounts
_GLOBAL, _PAD_MODE, _COUNT_PAD, _ADAPTIVE = 4, 5, 6, 7


def max_pool(net: Net, step: Step, layer: nn.MaxPool2d) -> int:
    if pair(layer.dilation) != (1, 1):
        raise Unsupported(f"{step.name}: ncnn has no dilated max pooling")
    return _pool(net, step, layer, MAX, {})


def average_pool(net: Net, step: Step, layer: nn.AvgPool2d) -> int:
    if layer.divisor_override is not None:
        raise Unsupported(f"{step.name}: ncnn's average pooling cannot have a divisor of its own")
    padding = pair(layer.padding)
    counted = layer.count_include_pad or padding == (0, 0)
    beyond = [after > own for (_, after), own in zip(_padding(step, layer), padding, strict=True)]
    if layer.ceil_mode and any(beyond):
        # torch counts the layer's padding, but not the pixels that the last window reaches beyond it
        if layer.count_include_pad and padding != (0, 0):
            raise Unsupported(f"{step.name}: ncnn's average pooling must count all of its padding or none")
        counted = False
    return _pool(net, step, layer, AVERAGE, {_COUNT_PAD: int(counted)})


def _padding(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> list[tuple[int, int]]:
    return reached_padding(layer, step.input_shapes[0][1:], step.shape[1:])


def _pool(net: Net, step: Step, layer: nn.MaxPool2d | nn.AvgPool2d, kind: int, more: dict[int, Param]) -> int:
    (top, bottom), (left, right) = _padding(step, layer)
    pads = {3: left, 13: top, 14: right, 15: bottom}
    return window(net, step, kind, pair(layer.kernel_size), pair(layer.stride), {**pads, **more})


def window(
    net: Net, step: Step, kind: int, kernel: tuple[int, int], stride: tuple[int, int], more: dict[int, Param]
) -> int:
    """Add a Pooling layer with windows of `kernel` (height, width), and return the result."""
    params: dict[int, Param] = {0: kind, 1: kernel[1], 11: kernel[0], 2: stride[1], 12: stride[0], _PAD_MODE: _VALID}
    return net.add("Pooling", step.name, (as_map(net, step),), step.shape, {**params, **more})


def adaptive_average_pool(net: Net, step: Step, layer: nn.AdaptiveAvgPool2d) -> int:
    _, height, width = step.input_shapes[0]
    _, out_height, out_width = step.shape
    if (out_height, out_width) == (1, 1):
        return global_pool(net, step, AVERAGE)
    if height % out_height or width % out_width:
        params: dict[int, Param] = {0: AVERAGE, _ADAPTIVE: 1, 8: out_width, 18: out_height}
        return net.add("Pooling", step.name, (as_map(net, step),), step.shape, params)
    size = (height // out_height, width // out_width)
    return window(net, step, AVERAGE, size, size, {_COUNT_PAD: 1})


def global_pool(net: Net, step: Step, kind: int) -> int:
    """One number per channel. ncnn returns it flat, (C,); a layer that needs a map reshapes it."""
    return net.add("Pooling", step.name, (as_map(net, step),), step.shape[:1], {0: kind, _GLOBAL: 1})


LOWERINGS: Lowerings = {
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
}
