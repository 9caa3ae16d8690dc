"""How each layer of the vocabulary is said in TFLite: one function per layer class, NCHW in, NHWC out.

A lowering either emits operators whose last output is the node's tensor, or raises Unsupported with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.lowering import activation, arithmetic, convolution, layout, pooling
from slimseg.runtimes.litert.lowering.step import Fused, Op, Step, nhwc
from slimseg.runtimes.litert.schema import ModelBuilder

LOWERINGS: dict[type[nn.Module], Callable[[ModelBuilder, Step, Any], int]] = {
    nn.Conv2d: convolution.convolution,
    nn.ConvTranspose2d: convolution.transposed_convolution,
    ops.CroppedConvTranspose2d: convolution.transposed_convolution,
    nn.Linear: convolution.linear,
    nn.MaxPool2d: pooling.max_pool,
    nn.AvgPool2d: pooling.average_pool,
    nn.AdaptiveAvgPool2d: pooling.adaptive_average_pool,
    nn.Softmax: activation.softmax,
    nn.ReLU: activation.plain(Op.RELU),
    nn.ReLU6: activation.plain(Op.RELU6),
    nn.Hardtanh: activation.hard_tanh,
    nn.LeakyReLU: activation.leaky_relu,
    nn.PReLU: activation.prelu,
    ops.SpatialPReLU: activation.spatial_prelu,
    nn.ELU: activation.elu,
    nn.Hardswish: activation.plain(Op.HARD_SWISH),
    nn.Hardsigmoid: activation.hard_sigmoid,
    nn.SiLU: activation.silu,
    nn.Sigmoid: activation.plain(Op.LOGISTIC),
    nn.Tanh: activation.plain(Op.TANH),
    nn.GELU: activation.gelu,
    ops.Unary: arithmetic.function,
    ops.Add: arithmetic.binary,
    ops.Subtract: arithmetic.binary,
    ops.Divide: arithmetic.binary,
    ops.Maximum: arithmetic.binary,
    ops.Minimum: arithmetic.binary,
    ops.Multiply: arithmetic.binary,
    ops.Affine: arithmetic.affine,
    ops.Concat: layout.concat,
    ops.Pad: layout.pad,
    ops.Resize: layout.resize,
    ops.ArgMax: layout.arg_max,
    ops.Slice: layout.slice_,
    ops.Reshape: layout.reshape,
    ops.Transpose: layout.transpose,
    ops.Reduce: layout.reduce,
    ops.DepthToSpace: layout.depth_to_space,
    ops.SpaceToDepth: layout.space_to_depth,
    ops.Cast: layout.cast,
}

FUSABLE: dict[type[nn.Module], int] = {nn.ReLU: Fused.RELU, nn.ReLU6: Fused.RELU6}
FUSE_INTO: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.AvgPool2d,
    nn.MaxPool2d,
    ops.Add,
    ops.Subtract,
    ops.Multiply,
    ops.Divide,
    ops.Affine,
)


def writable(graph: Graph, node: fx.Node) -> bool:
    """Whether there is a lowering for the node's kind of layer."""
    return node.op == "call_module" and type(graph.layer(node)) in (*LOWERINGS, nn.BatchNorm2d)


__all__ = ["FUSABLE", "FUSE_INTO", "LOWERINGS", "Fused", "Step", "nhwc", "writable"]
