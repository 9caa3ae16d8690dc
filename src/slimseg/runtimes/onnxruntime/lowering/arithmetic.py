"""Arithmetic on one or two tensors, with torch's broadcasting, which is ONNX's, too."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.lowering import spelling, weights
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step, plain

_UNARY = {
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "neg": "Neg",
    "sqrt": "Sqrt",
    "rsqrt": "Sqrt",  # followed by Reciprocal
    "square": "Pow",  # with the exponent 2
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "sign": "Sign",
    "reciprocal": "Reciprocal",
}


def function(step: Step, layer: ops.Unary) -> str:
    op = spelling(_UNARY, layer.function, step.node.name, "ONNX")
    if layer.function == "rsqrt":
        return step.add("Reciprocal", (step.inner(op, "root", step.inputs),))
    if layer.function == "square":
        return step.add(op, (step.inputs[0], step.number("exponent", 2.0)))
    return step.add(op)


def affine(step: Step, layer: ops.Affine) -> str:
    """A product, a sum, or a product followed by a sum."""
    source = step.inputs[0]
    if layer.scale is not None:
        inputs = (source, step.constant("scale", weights(layer.scale)))
        source = step.add("Mul", inputs) if layer.shift is None else step.inner("Mul", "scaled", inputs)
    if layer.shift is not None:
        source = step.add("Add", (source, step.constant("shift", weights(layer.shift))))
    return source


LOWERINGS: Lowerings = {
    ops.Unary: function,
    ops.Add: plain("Add"),
    ops.Subtract: plain("Sub"),
    ops.Multiply: plain("Mul"),
    ops.Divide: plain("Div"),
    ops.Maximum: plain("Max"),
    ops.Minimum: plain("Min"),
    ops.Affine: affine,
}
