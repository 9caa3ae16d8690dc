"""Convolutions, transposed convolutions and linear layers. MIL has torch's order of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.shapes import pair
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var, cut
from slimseg.runtimes.lowering import weights


def convolution(step: Step, layer: nn.Conv2d) -> Var:
    """A convolution, fused with a zero padding before it, which may differ on each side."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Unsupported(
            f"{step.node.name}: Core ML's convolution does not have padding {layer.padding_mode} {layer.padding}"
        )
    own_h, own_w = pair(layer.padding)
    left, right, top, bottom = step.padding
    return step.mb.conv(
        x=step.inputs[0],
        weight=weights(layer.weight),
        **_bias(layer),
        strides=list(pair(layer.stride)),
        pad_type="custom",
        pad=[top + own_h, bottom + own_h, left + own_w, right + own_w],
        dilations=list(pair(layer.dilation)),
        groups=layer.groups,
        name=step.name,
    )


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> dict[str, Any]:
    return {} if layer.bias is None else {"bias": weights(layer.bias)}


def transposed_convolution(step: Step, layer: nn.ConvTranspose2d) -> Var:
    """A transposed convolution.

    torch's output_padding reduces the padding at the bottom and right. Where it is larger than the padding, the
    additional pixels contain only the bias.
    """
    left, right, top, bottom = getattr(layer, "crop", (0, 0, 0, 0))
    (pad_h, pad_w), (more_h, more_w) = pair(layer.padding), pair(layer.output_padding)
    behind = [pad_h - more_h, pad_w - more_w]
    missing = [max(0, -amount) for amount in behind]
    plain = not any(missing) and not any((left, right, top, bottom))
    bias = _bias(layer) if not any(missing) else {}
    result = step.mb.conv_transpose(
        x=step.inputs[0],
        weight=weights(layer.weight),
        **bias,
        strides=list(pair(layer.stride)),
        pad_type="custom",
        pad=[pad_h, max(0, behind[0]), pad_w, max(0, behind[1])],
        dilations=list(pair(layer.dilation)),
        groups=layer.groups,
        name=step.name if plain else step.named("full"),
    )
    if any(missing):
        cropped = any((left, right, top, bottom))
        result = step.mb.pad(
            x=result, pad=[0, missing[0], 0, missing[1]], mode="constant", constant_val=0.0, name=step.named("padded")
        )
        offset = weights(layer.bias).reshape(1, -1, 1, 1) if layer.bias is not None else np.zeros((1, 1, 1, 1), "f4")
        result = step.mb.add(x=result, y=offset, name=step.named("biased") if cropped else step.name)
    if any((left, right, top, bottom)):
        result = cut(step, result, (0, 0, top, left), (0, 0, -bottom, -right))
    return result


def linear(step: Step, layer: nn.Linear) -> Var:
    if len(step.shape) <= 3:
        return step.mb.linear(x=step.inputs[0], weight=weights(layer.weight), **_bias(layer), name=step.name)
    name = step.name if layer.bias is None else step.named("product")
    result = step.mb.matmul(x=step.inputs[0], y=weights(layer.weight), transpose_y=True, name=name)
    if layer.bias is None:
        return result
    return step.mb.add(x=result, y=weights(layer.bias).reshape(1, 1, 1, -1), name=step.name)


LOWERINGS: Lowerings = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    ops.CroppedConvTranspose2d: transposed_convolution,
    nn.Linear: linear,
}
