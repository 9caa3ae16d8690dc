"""Normalisation by an image's own statistics: LayerNorm, RMSNorm, InstanceNorm or GroupNorm without weights."""

from __future__ import annotations

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.ncnn.lowering.permutation import permute
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map, axis
from slimseg.runtimes.ncnn.net import Net

_CHANNELS_LAST, _CHANNELS_FIRST = (1, 2, 0), (2, 0, 1)


def normalise(net: Net, step: Step, layer: ops.Normalise) -> int:
    """LayerNorm and RMSNorm run over the last dimension, so the channels of a map are moved there and back."""
    source, shape = as_map(net, step), step.shape
    axes = tuple(axis(step, dim) for dim in layer.dims)
    if axes == (len(shape) - 1,) and layer.groups == 1:
        return _last(net, layer, source, step.name)
    if len(shape) != 3 or axes not in ((0,), (1, 2), (0, 1, 2)) or (layer.groups > 1 and axes != (0, 1, 2)):
        raise Unsupported(f"{step.name}: ncnn cannot normalise over {layer.dims} of {(1, *shape)}")
    if axes == (0,):
        rows = permute(net, source, f"{step.name}_rows", _CHANNELS_LAST)
        return permute(net, _last(net, layer, rows, f"{step.name}_normal"), step.name, _CHANNELS_FIRST)
    if not layer.centred:
        raise Unsupported(f"{step.name}: ncnn's RMSNorm runs over one dimension only")
    if axes == (1, 2):
        return net.add("InstanceNorm", step.name, (source,), shape, {0: shape[0], 1: layer.epsilon, 2: 0})
    return net.add("GroupNorm", step.name, (source,), shape, {0: layer.groups, 1: shape[0], 2: layer.epsilon, 3: 0})


def _last(net: Net, layer: ops.Normalise, source: int, name: str) -> int:
    shape = net.shape(source)
    return net.add(
        "LayerNorm" if layer.centred else "RMSNorm", name, (source,), shape, {0: shape[-1], 1: layer.epsilon, 2: 0}
    )


LOWERINGS: Lowerings = {ops.Normalise: normalise}
