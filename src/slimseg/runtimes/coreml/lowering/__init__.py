"""How each layer of the vocabulary is said in MIL, Core ML's language: one function per layer class, NCHW throughout.

A lowering either builds operations whose last value is the node's, or raises Unsupported with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.coreml.lowering import activation, arithmetic, convolution, layout, pooling
from slimseg.runtimes.coreml.lowering.resize import resize
from slimseg.runtimes.coreml.lowering.step import Step, Var

LOWERINGS: dict[type[nn.Module], Callable[[Step, Any], Var]] = {
    nn.Conv2d: convolution.convolution,
    nn.ConvTranspose2d: convolution.transposed_convolution,
    ops.CroppedConvTranspose2d: convolution.transposed_convolution,
    nn.Linear: convolution.linear,
    nn.MaxPool2d: pooling.max_pool,
    nn.AvgPool2d: pooling.average_pool,
    nn.AdaptiveAvgPool2d: pooling.adaptive_average_pool,
    nn.Softmax: activation.softmax,
    nn.ReLU: activation.plain("relu"),
    nn.ReLU6: activation.plain("relu6"),
    nn.Hardtanh: activation.hard_tanh,
    nn.LeakyReLU: activation.leaky_relu,
    nn.PReLU: activation.prelu,
    ops.SpatialPReLU: activation.spatial_prelu,
    nn.ELU: activation.elu,
    nn.Hardswish: activation.hard_swish,
    nn.Hardsigmoid: activation.hard_sigmoid,
    nn.SiLU: activation.plain("silu"),
    nn.Sigmoid: activation.plain("sigmoid"),
    nn.Tanh: activation.plain("tanh"),
    nn.GELU: activation.gelu,
    ops.Unary: arithmetic.function,
    ops.Add: arithmetic.binary("add"),
    ops.Subtract: arithmetic.binary("sub"),
    ops.Multiply: arithmetic.binary("mul"),
    ops.Divide: arithmetic.binary("real_div"),
    ops.Maximum: arithmetic.binary("maximum"),
    ops.Minimum: arithmetic.binary("minimum"),
    ops.Affine: arithmetic.affine,
    ops.Concat: layout.concat,
    ops.Pad: layout.pad,
    ops.Resize: resize,
    ops.ArgMax: layout.arg_max,
    ops.Slice: layout.slice_,
    ops.Reshape: layout.reshape,
    ops.Transpose: layout.transpose,
    ops.Reduce: layout.reduce,
    ops.DepthToSpace: layout.depth_to_space,
    ops.SpaceToDepth: layout.space_to_depth,
    ops.Cast: layout.cast,
}


def writable(graph: Graph, node: fx.Node) -> bool:
    """Whether there is a lowering for the node's kind of layer."""
    return node.op == "call_module" and type(graph.layer(node)) in (*LOWERINGS, nn.BatchNorm2d)


__all__ = ["LOWERINGS", "Step", "Var", "writable"]
