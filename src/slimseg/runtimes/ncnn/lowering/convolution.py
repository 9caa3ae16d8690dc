"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.shapes import pair
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map, as_shape, volume
from slimseg.runtimes.ncnn.net import Net, Param, Weight


def convolution(net: Net, step: Step, layer: nn.Conv2d) -> int:
    if is_scale(layer):
        return _scale(net, step, layer)
    if _is_linear(net, step, layer):
        return _inner_product(net, step, step.inputs[0], step.name, layer.weight.flatten(1), layer.bias)
    left, right, top, bottom = step.padding
    own_h, own_w = _own_padding(step, layer)
    params = {
        **_window(layer),
        4: left + own_w,
        14: top + own_h,
        15: right + own_w,
        16: bottom + own_h,
        6: layer.weight.numel(),
        **({18: float(step.pad_value)} if step.pad_value else {}),
        **step.fused,
    }
    kind = "Convolution"
    if layer.groups > 1:
        kind, params = "ConvolutionDepthWise", {**params, 7: layer.groups}
    return net.add(kind, step.name, (as_map(net, step),), step.shape, params, _stored(weights(layer.weight), layer))


def is_scale(layer: nn.Module) -> bool:
    """Whether it is a depthwise 1x1 convolution, the folded form of a batch norm that no other layer could absorb."""
    return (
        isinstance(layer, nn.Conv2d)
        and ops.keeps_channels_apart(layer)
        and pair(layer.kernel_size) == pair(layer.stride) == (1, 1)
        and layer.padding in (0, (0, 0), "valid", "same")
    )


def _scale(net: Net, step: Step, layer: nn.Conv2d) -> int:
    values = [Weight(weights(layer.weight).reshape(-1))]
    if layer.bias is not None:
        values.append(Weight(weights(layer.bias)))
    params: dict[int, Param] = {0: layer.out_channels, 1: int(layer.bias is not None)}
    return net.add("Scale", step.name, step.inputs, net.shape(step.inputs[0]), params, values)


def _is_linear(net: Net, step: Step, layer: nn.Conv2d) -> bool:
    """Whether it is a 1x1 convolution of a flat result of global pooling."""
    flat = len(net.shape(step.inputs[0])) == 1
    return flat and layer.groups == 1 and pair(layer.kernel_size) == (1, 1) and step.shape[1:] == (1, 1)


def _own_padding(step: Step, layer: nn.Conv2d) -> tuple[int, int]:
    if layer.padding == "valid":
        return 0, 0
    if isinstance(layer.padding, str):
        raise Unsupported(f"{step.name}: its padding {layer.padding!r} is not a number of pixels")
    return pair(layer.padding)


def _window(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[int, Param]:
    (kernel_h, kernel_w), (dilation_h, dilation_w) = pair(layer.kernel_size), pair(layer.dilation)
    stride_h, stride_w = pair(layer.stride)
    return {
        0: layer.out_channels,
        1: kernel_w,
        11: kernel_h,
        2: dilation_w,
        12: dilation_h,
        3: stride_w,
        13: stride_h,
        5: int(layer.bias is not None),
    }


def _stored(values: object, layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> list[Weight]:
    bias = [] if layer.bias is None else [Weight(weights(layer.bias))]
    return [Weight(values, tagged=True), *bias]  # type: ignore[arg-type]


def transposed_convolution(net: Net, step: Step, layer: nn.ConvTranspose2d) -> int:
    """Deconvolution, which crops its full result by torch's padding and the layer's crop together.

    torch's output_padding first reduces the crop at the right and bottom; only the rest is added there.
    """
    left, right, top, bottom = getattr(layer, "crop", (0, 0, 0, 0))
    (own_h, own_w), (extra_h, extra_w) = pair(layer.padding), pair(layer.output_padding)
    behind_w, behind_h = own_w + right - extra_w, own_h + bottom - extra_h
    params = {
        **_window(layer),
        4: own_w + left,
        14: own_h + top,
        15: max(behind_w, 0),
        16: max(behind_h, 0),
        **({18: max(-behind_w, 0), 19: max(-behind_h, 0)} if min(behind_w, behind_h) < 0 else {}),
        6: layer.weight.numel(),
        **step.fused,
    }
    kind, (_, outputs, *kernel) = "Deconvolution", layer.weight.shape
    if layer.groups > 1:
        kind, params = "DeconvolutionDepthWise", {**params, 7: layer.groups}
    # torch's weights are (in, out / groups, kernel), with the groups along `in`
    grouped = layer.weight.reshape(layer.groups, -1, outputs, *kernel)
    values = weights(grouped, (0, 2, 1, 3, 4))
    return net.add(kind, step.name, (as_map(net, step),), step.shape, params, _stored(values, layer))


def linear(net: Net, step: Step, layer: nn.Linear) -> int:
    """InnerProduct takes one or two dimensions: all but the last are joined before, and split again after."""
    shape = step.input_shapes[0]
    if len(shape) <= 2:
        return _inner_product(net, step, step.inputs[0], step.name, layer.weight, layer.bias)
    rows = as_shape(net, step.inputs[0], (volume(shape[:-1]), shape[-1]), f"{step.name}_rows")
    product = _inner_product(net, step, rows, f"{step.name}_product", layer.weight, layer.bias)
    return as_shape(net, product, step.shape, step.name)


def _inner_product(net: Net, step: Step, source: int, name: str, weight: Tensor, bias: Tensor | None) -> int:
    outputs = int(weight.shape[0])
    params: Mapping[int, Param] = {0: outputs, 1: int(bias is not None), 2: weight.numel(), **step.fused}
    values = [Weight(weights(weight), tagged=True)] + ([] if bias is None else [Weight(weights(bias))])
    shape = (*net.shape(source)[:-1], outputs)
    return net.add("InnerProduct", name, (source,), shape, params, values)


LOWERINGS: Lowerings = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    ops.CroppedConvTranspose2d: transposed_convolution,
    nn.Linear: linear,
}
