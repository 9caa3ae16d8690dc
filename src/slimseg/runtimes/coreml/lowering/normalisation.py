"""Normalisation by an image's own statistics, spelled out: Core ML's compiler joins the operations where it can."""

from __future__ import annotations

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var


def normalise(step: Step, layer: ops.Normalise) -> Var:
    if layer.groups == 1:
        return _normal(step, layer, step.inputs[0], list(layer.dims), step.name)
    if step.flexible:
        raise Unsupported(
            f"{step.node.name}: groups of channels cannot be normalised at flexible sizes: leave `sizes` out"
        )
    batch, channels, *pixels = step.shape
    grouped = [batch, layer.groups, channels // layer.groups, *pixels]
    apart = step.mb.reshape(x=step.inputs[0], shape=grouped, name=step.named("groups"))
    normal = _normal(step, layer, apart, [dim + 1 for dim in layer.dims], step.named("grouped"))
    return step.mb.reshape(x=normal, shape=list(step.shape), name=step.name)


def _normal(step: Step, layer: ops.Normalise, source: Var, axes: list[int], name: str) -> Var:
    mb, centred = step.mb, source
    if layer.centred:
        mean = mb.reduce_mean(x=source, axes=axes, keep_dims=True, name=step.named("mean"))
        centred = mb.sub(x=source, y=mean, name=step.named("centred"))
    squared = mb.square(x=centred, name=step.named("squared"))
    variance = mb.reduce_mean(x=squared, axes=axes, keep_dims=True, name=step.named("variance"))
    steady = mb.add(x=variance, y=float(layer.epsilon), name=step.named("steady"))
    return mb.mul(x=centred, y=mb.rsqrt(x=steady, name=step.named("inverse")), name=name)


LOWERINGS: Lowerings = {ops.Normalise: normalise}
