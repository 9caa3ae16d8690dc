"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.shapes import pair
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step


def convolution(step: Step, layer: nn.Conv2d) -> str:
    """A convolution, fused with a zero padding before it, which may differ on each side."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Unsupported(f"{step.name}: ONNX's convolution does not have padding {layer.padding_mode} {layer.padding}")
    own_h, own_w = pair(layer.padding)
    left, right, top, bottom = step.padding
    return step.add(
        "Conv",
        _inputs(step, layer),
        kernel_shape=pair(layer.kernel_size),
        strides=pair(layer.stride),
        pads=(top + own_h, left + own_w, bottom + own_h, right + own_w),
        dilations=pair(layer.dilation),
        group=layer.groups,
    )


def transposed_convolution(step: Step, layer: nn.ConvTranspose2d) -> str:
    """A transposed convolution. ONNX's pads crop the result on each side, so a crop behind it becomes part of them.

    torch's output_padding adds rows at the bottom, so it is set off against what is cropped there.
    """
    left, right, top, bottom = getattr(layer, "crop", (0, 0, 0, 0))
    (pad_h, pad_w), more = pair(layer.padding), pair(layer.output_padding)
    begin, end = (pad_h + top, pad_w + left), (pad_h + bottom, pad_w + right)
    if any((left, right, top, bottom)):
        set_off = [min(each) for each in zip(end, more, strict=True)]
        end, more = ((end[0] - set_off[0], end[1] - set_off[1]), (more[0] - set_off[0], more[1] - set_off[1]))
    return step.add(
        "ConvTranspose",
        _inputs(step, layer),
        kernel_shape=pair(layer.kernel_size),
        strides=pair(layer.stride),
        pads=(*begin, *end),
        output_padding=more,
        dilations=pair(layer.dilation),
        group=layer.groups,
    )


def _inputs(step: Step, layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[str, ...]:
    weight = step.constant("weight", weights(layer.weight))
    bias = () if layer.bias is None else (step.constant("bias", weights(layer.bias)),)
    return (step.inputs[0], weight, *bias)


def linear(step: Step, layer: nn.Linear) -> str:
    """Gemm for a flat value, else a matrix product and a sum."""
    bias = None if layer.bias is None else step.constant("bias", weights(layer.bias))
    if len(step.shape) == 2:
        weight = step.constant("weight", weights(layer.weight))
        return step.add("Gemm", (step.inputs[0], weight, *filter(None, (bias,))), transB=1)
    inputs = (step.inputs[0], step.constant("weight", weights(layer.weight, (1, 0))))
    if bias is None:
        return step.add("MatMul", inputs)
    return step.add("Add", (step.inner("MatMul", "product", inputs), bias))


LOWERINGS: Lowerings = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    ops.CroppedConvTranspose2d: transposed_convolution,
    nn.Linear: linear,
}
