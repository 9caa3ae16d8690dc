"""How each layer of the vocabulary is said in ncnn: one function per layer class, torch's NCHW on both sides.

A lowering adds layers to the net and returns the blob that holds the node's value, or raises Unsupported with the
reason. ncnn has no batch, and a blob that global pooling made flat stays flat, (C,) for (C, 1, 1), until somebody
needs a map: ncnn multiplies such a blob with a map channel by channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.ncnn.lowering import activation, arithmetic, convolution, layout, pooling, resize
from slimseg.runtimes.ncnn.lowering.activation import fused
from slimseg.runtimes.ncnn.lowering.step import Step, unbatched
from slimseg.runtimes.ncnn.net import Net, Param

Activation = Mapping[int, Param]

LOWERINGS: dict[type[nn.Module], Callable[[Net, Step, Any], int]] = {
    nn.Conv2d: convolution.convolution,
    nn.ConvTranspose2d: convolution.transposed_convolution,
    ops.CroppedConvTranspose2d: convolution.transposed_convolution,
    nn.Linear: convolution.linear,
    nn.MaxPool2d: pooling.max_pool,
    nn.AvgPool2d: pooling.average_pool,
    nn.AdaptiveAvgPool2d: pooling.adaptive_average_pool,
    nn.Softmax: activation.softmax,
    nn.ReLU: activation.plain("ReLU"),
    nn.ReLU6: activation.hard_tanh,
    nn.Hardtanh: activation.hard_tanh,
    nn.LeakyReLU: activation.leaky_relu,
    nn.PReLU: activation.prelu,
    ops.SpatialPReLU: activation.spatial_prelu,
    nn.ELU: activation.elu,
    nn.Hardswish: activation.hard_swish,
    nn.Hardsigmoid: activation.hard_sigmoid,
    nn.SiLU: activation.plain("Swish"),
    nn.Sigmoid: activation.plain("Sigmoid"),
    nn.Tanh: activation.plain("TanH"),
    nn.GELU: activation.gelu,
    ops.Unary: arithmetic.function,
    ops.Add: arithmetic.binary,
    ops.Subtract: arithmetic.binary,
    ops.Multiply: arithmetic.binary,
    ops.Divide: arithmetic.binary,
    ops.Maximum: arithmetic.binary,
    ops.Minimum: arithmetic.binary,
    ops.Affine: arithmetic.affine,
    ops.Concat: layout.concat,
    ops.Pad: layout.pad,
    ops.Resize: resize.resize,
    ops.Slice: layout.slice_,
    ops.Reshape: layout.reshape,
    ops.Transpose: layout.transpose,
    ops.Reduce: layout.reduce,
    ops.DepthToSpace: layout.depth_to_space,
    ops.SpaceToDepth: layout.space_to_depth,
    ops.Cast: layout.cast,
}


def writable(graph: Graph, node: fx.Node) -> bool:
    """Whether there is a lowering for the node's kind of layer; folding does away with batch norms."""
    return node.op == "call_module" and type(graph.layer(node)) in (*LOWERINGS, nn.BatchNorm2d)


def fuses(layer: nn.Module | None) -> bool:
    """Whether ncnn's layer can apply an activation to its result."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and not convolution.is_scale(layer)


def pads(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether ncnn's layer pads its input by itself, on each side as it is told."""
    return isinstance(layer, nn.Conv2d) and not convolution.is_scale(layer)


__all__ = ["LOWERINGS", "Activation", "Step", "fused", "fuses", "pads", "unbatched", "writable"]
