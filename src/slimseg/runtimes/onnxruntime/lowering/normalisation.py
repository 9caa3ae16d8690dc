"""Normalisation by an image's own statistics, over any dimensions and groups, in plain operators.

LayerNormalization runs over the last dimensions only, and InstanceNormalization over the pixels.
"""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step
from slimseg.runtimes.onnxruntime.model import Shape


def normalise(step: Step, layer: ops.Normalise) -> str:
    axes = [dim % len(step.shape) for dim in layer.dims]
    if layer.groups == 1:
        return step.add("Div", _normal(step, layer, step.inputs[0], axes, step.shape))
    batch, channels, *pixels = step.shape
    grouped = (batch, layer.groups, channels // layer.groups, *pixels)
    apart = step.inner("Reshape", "groups", (step.inputs[0], step.integers("grouped_shape", grouped)), grouped)
    parts = _normal(step, layer, apart, [dim + 1 for dim in axes], grouped)
    normal = step.inner("Div", "grouped", parts, grouped)
    return step.add("Reshape", (normal, step.integers("shape", step.shape)))


def _normal(step: Step, layer: ops.Normalise, source: str, axes: list[int], shape: Shape) -> tuple[str, str]:
    """x less its mean, and the root of its variance, which divides it."""
    few = tuple(1 if dim in axes else length for dim, length in enumerate(shape))
    centred = source
    if layer.centred:
        mean = step.inner("ReduceMean", "mean", (source,), few, axes=axes, keepdims=1)
        centred = step.inner("Sub", "centred", (source, mean), shape)
    squared = step.inner("Mul", "squared", (centred, centred), shape)
    variance = step.inner("ReduceMean", "variance", (squared,), few, axes=axes, keepdims=1)
    steady = step.inner("Add", "steady", (variance, step.number("epsilon", layer.epsilon)), few)
    return centred, step.inner("Sqrt", "deviation", (steady,), few)


LOWERINGS: Lowerings = {ops.Normalise: normalise}
