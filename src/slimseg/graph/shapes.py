"""Output shapes (NCHW), layer by layer: arithmetic for the vocabulary, torch's own rules for opaque nodes.

Running the network on tensors without data would do, too, but takes a hundred times as long, and a search asks for
the shapes of some hundred edited networks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slimseg.errors import GraphError
from slimseg.graph import ops

Shape = tuple[int, ...]


def propagate(module: fx.GraphModule, input_shape: Shape) -> None:
    """Set `meta["shape"]` on every node whose value is a tensor.

    Raises:
        GraphError: the network cannot take an input of that shape; the message names the layer.
    """
    if any(node.op == "call_function" for node in module.graph.nodes):
        _by_running(module, input_shape)
        return
    for node in module.graph.nodes:
        if node.op == "placeholder":
            node.meta["shape"] = tuple(input_shape)
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            shapes = [source.meta["shape"] for source in node.args]
            try:
                node.meta["shape"] = shape_of(layer, shapes)
            except ValueError as error:
                raise GraphError(f"{node.name} does not fit an input of {input_shape}: {error}") from error


def shape_of(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """Output shape of one layer of the vocabulary.

    Raises:
        ValueError: the inputs do not fit the layer.
    """
    for kind, rule in _RULES.items():
        if isinstance(layer, kind):
            result = rule(layer, shapes)
            if min(result) < 1:
                raise ValueError(f"nothing of {shapes[0]} would be left")
            return result
    return shapes[0]


def pair(value: Any) -> tuple[int, int]:
    """An int or two of them, as torch's layers store kernel sizes."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def same_padding(length: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after): what TensorFlow's SAME pads a side of `length` pixels with.

    The result has ⌈length / stride⌉ pixels; an odd pixel of padding goes behind.
    """
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def _windows(layer: Any, shape: Shape, dilation: Any = 1) -> tuple[int, int]:
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


def _convolution(layer: nn.Conv2d, shapes: Sequence[Shape]) -> Shape:
    _require_channels(shapes[0], layer.in_channels)
    return (shapes[0][0], layer.out_channels, *_windows(layer, shapes[0], layer.dilation))


def _transposed(layer: nn.ConvTranspose2d, shapes: Sequence[Shape]) -> Shape:
    _require_channels(shapes[0], layer.in_channels)
    settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.output_padding)
    height, width = (
        (length - 1) * stride - 2 * padding + spread * (kernel - 1) + extra + 1
        for length, kernel, stride, padding, spread, extra in zip(shapes[0][2:], *map(pair, settings), strict=True)
    )
    left, right, top, bottom = getattr(layer, "crop", (0, 0, 0, 0))
    return (shapes[0][0], layer.out_channels, height - top - bottom, width - left - right)


def _require_channels(shape: Shape, channels: int) -> None:
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"it takes {channels} channels, not {shape}")


def _batch_norm(layer: nn.BatchNorm2d, shapes: Sequence[Shape]) -> Shape:
    _require_channels(shapes[0], layer.num_features)
    return shapes[0]


def _prelu(layer: nn.PReLU, shapes: Sequence[Shape]) -> Shape:
    if layer.num_parameters not in (1, shapes[0][1]):
        raise ValueError(f"it has {layer.num_parameters} slopes for {shapes[0]}")
    return shapes[0]


def _pooling(layer: Any, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *_windows(layer, shapes[0], getattr(layer, "dilation", 1)))


def _adaptive(layer: nn.AdaptiveAvgPool2d, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *pair(layer.output_size))


def _linear(layer: nn.Linear, shapes: Sequence[Shape]) -> Shape:
    if shapes[0][-1] != layer.in_features:
        raise ValueError(f"it takes {layer.in_features} features, not {shapes[0]}")
    return (*shapes[0][:-1], layer.out_features)


def _broadcast(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    try:
        return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit each other") from error


def _concat(layer: ops.Concat, shapes: Sequence[Shape]) -> Shape:
    others = {(*shape[: layer.dim], *shape[layer.dim + 1 :]) for shape in shapes}
    if len(others) != 1:
        raise ValueError(f"{' and '.join(map(str, shapes))} do not fit each other")
    total = sum(shape[layer.dim] for shape in shapes)
    return (*shapes[0][: layer.dim], total, *shapes[0][layer.dim + 1 :])


def _pad(layer: ops.Pad, shapes: Sequence[Shape]) -> Shape:
    left, right, top, bottom = layer.padding
    batch, channels, height, width = shapes[0]
    return (batch, channels + sum(layer.channels), height + top + bottom, width + left + right)


def _resize(layer: ops.Resize, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *layer.size)


def _arg_max(layer: ops.ArgMax, shapes: Sequence[Shape]) -> Shape:
    return (shapes[0][0], *shapes[0][2:])


def _slice(layer: ops.Slice, shapes: Sequence[Shape]) -> Shape:
    if not 0 <= layer.start < layer.stop <= shapes[0][layer.dim]:
        raise ValueError(f"it takes {layer.start} to {layer.stop} of dimension {layer.dim} of {shapes[0]}")
    length = -(-(layer.stop - layer.start) // layer.step)
    return (*shapes[0][: layer.dim], length, *shapes[0][layer.dim + 1 :])


def _reshape(layer: ops.Reshape, shapes: Sequence[Shape]) -> Shape:
    total, known = math.prod(shapes[0]), math.prod(length for length in layer.shape if length != -1)
    shape = tuple(total // max(known, 1) if length == -1 else length for length in layer.shape)
    if math.prod(shape) != total:
        raise ValueError(f"{shapes[0]} does not fit into {layer.shape}")
    return shape


def _transpose(layer: ops.Transpose, shapes: Sequence[Shape]) -> Shape:
    if sorted(layer.dims) != list(range(len(shapes[0]))):
        raise ValueError(f"{layer.dims} is no order of the dimensions of {shapes[0]}")
    return tuple(shapes[0][dim] for dim in layer.dims)


def _reduce(layer: ops.Reduce, shapes: Sequence[Shape]) -> Shape:
    kept = enumerate(shapes[0])
    return tuple(1 if dim in layer.dims else length for dim, length in kept if layer.keepdim or dim not in layer.dims)


def _depth_to_space(layer: ops.DepthToSpace, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = shapes[0]
    if channels % layer.block**2:
        raise ValueError(f"{channels} channels do not divide into blocks of {layer.block}x{layer.block}")
    return (batch, channels // layer.block**2, height * layer.block, width * layer.block)


def _space_to_depth(layer: ops.SpaceToDepth, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = shapes[0]
    if height % layer.block or width % layer.block:
        raise ValueError(f"{height}x{width} does not divide into blocks of {layer.block}x{layer.block}")
    return (batch, channels * layer.block**2, height // layer.block, width // layer.block)


def _affine(layer: ops.Affine, shapes: Sequence[Shape]) -> Shape:
    constants = [value for value in (layer.scale, layer.shift) if value is not None]
    return _broadcast(layer, [*shapes, *(tuple(value.shape) for value in constants)])


def _spatial_prelu(layer: ops.SpatialPReLU, shapes: Sequence[Shape]) -> Shape:
    return _broadcast(layer, [*shapes, tuple(layer.weight.shape)])


_RULES: dict[type[nn.Module], Callable[[Any, Sequence[Shape]], Shape]] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _transposed,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _prelu,
    nn.MaxPool2d: _pooling,
    nn.AvgPool2d: _pooling,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Linear: _linear,
    ops.Add: _broadcast,
    ops.Subtract: _broadcast,
    ops.Multiply: _broadcast,
    ops.Divide: _broadcast,
    ops.Maximum: _broadcast,
    ops.Minimum: _broadcast,
    ops.Affine: _affine,
    ops.SpatialPReLU: _spatial_prelu,
    ops.Concat: _concat,
    ops.Pad: _pad,
    ops.Resize: _resize,
    ops.ArgMax: _arg_max,
    ops.Slice: _slice,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Reduce: _reduce,
    ops.DepthToSpace: _depth_to_space,
    ops.SpaceToDepth: _space_to_depth,
}


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph on tensors without data and notes every output's shape."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _by_running(module: fx.GraphModule, input_shape: Shape) -> None:
    # torch logs the traceback of every shape that does not fit, which for us is an answer, not an accident.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            _ShapeRecorder(module).run(torch.empty(input_shape))
    except Exception as error:  # whatever an operator raises for a shape it does not fit
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(f"an input of {input_shape} does not fit the network: {reason}") from error
    finally:
        logger.disabled = was_disabled
