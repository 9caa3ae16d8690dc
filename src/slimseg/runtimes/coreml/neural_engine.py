"""Which operations of an ML Program run on Apple's Neural Engine, and which of their settings are slow or unsupported.

Core ML decides that on the device, reports it only there (Xcode's performance report, `MLComputePlan`), and documents
little. So the rules here were collected from others' findings, each with its source. They give warnings, not certainty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SOURCES = {
    "apple": "Apple, Deploying Transformers on the Apple Neural Engine (2022), "
    "machinelearning.apple.com/research/neural-engine-transformers",
    "catalogue": "ANEForge, op catalogue by chip (measured on M1 to M5), aneforge.readthedocs.io/en/latest/op-catalog",
    "rules": "Bryngelson, ane-guide, chapter 17 Model-design rules, ane-guide.readthedocs.io",
    "hollance": "Hollemans, The Neural Engine: what do we know about it?, github.com/hollance/neural-engine, "
    "docs/unsupported-layers.md",
    "reasoned": "slimseg's own reasoning from how the operation is computed: neither measured nor documented",
}

# In the catalogue all of these are native or folded away; resizing is in software on the M1, native on later chips.
_NATIVE = """
    conv conv_transpose linear matmul max_pool avg_pool batch_norm
    relu relu6 clip leaky_relu prelu elu sigmoid sigmoid_hard silu tanh gelu softmax
    add sub mul real_div maximum minimum abs exp log sqrt rsqrt square
    reduce_mean reduce_sum reduce_max reduce_min reduce_argmax
    concat split stack reshape transpose expand_dims squeeze identity pad slice_by_size slice_by_index
    depth_to_space space_to_depth pixel_shuffle upsample_bilinear upsample_nearest_neighbor resize_bilinear
    gather cast const constexpr_affine_dequantize constexpr_lut_to_dense
"""
NATIVE = frozenset(_NATIVE.split())
_LARGEST_TRANSPOSED = 4  # side of the kernel; the catalogue only states that strided sides have "small-kernel caps"
_LARGEST_SIDE = 16384
_LARGEST_KERNEL = 13  # columns of a kernel, in float16
_LARGEST_ARGMAX = 2048  # channels


@dataclass(frozen=True)
class Remark:
    """One operation that may be slow or leave the Neural Engine."""

    name: str  # name of the operation: the layer's name, sometimes with a suffix
    operation: str  # kind of the operation in MIL
    why: str
    source: str  # a key of SOURCES


def remarks(operation: Any) -> list[Remark]:
    """All remarks on one operation (coremltools' `Operation`) of a program."""
    kind, name = str(operation.op_type), str(operation.outputs[0].name)
    if kind not in NATIVE:
        return [Remark(name, kind, "is not among the operations known to run on the Neural Engine", "catalogue")]
    found = [*_sizes(operation), *(_RULES[kind](operation) if kind in _RULES else ())]
    return [Remark(name, kind, why, source) for why, source in found]


Found = Sequence[tuple[str, str]]


def _sizes(operation: Any) -> Found:
    shape = [side for side in operation.outputs[0].shape if isinstance(side, int)]
    result = []
    if len(shape) > 4 and operation.op_type in ("reshape", "transpose", "expand_dims"):
        result.append((f"has {len(shape)} dimensions, while the engine stores 4 and copies to convert", "apple"))
    if any(side > _LARGEST_SIDE for side in shape[2:]):
        result.append((f"has a side of more than {_LARGEST_SIDE}, the limit of the engine's compiler", "rules"))
    return result


def _convolution(operation: Any) -> Found:
    result: list[tuple[str, str]] = []
    if any(step > 1 for step in operation.dilations.val):
        result.append(("is dilated, which older chips run on the GPU or split up", "hollance"))
    columns = operation.weight.shape[-1]
    if columns > _LARGEST_KERNEL:
        result.append((f"has a kernel of {columns} columns, more than the {_LARGEST_KERNEL} allowed", "rules"))
    return result


def _transposed(operation: Any) -> Found:
    side = max(operation.weight.shape[2:])
    if side > _LARGEST_TRANSPOSED and max(operation.strides.val) > 1:
        return [(f"is transposed with a kernel of {side}: with strides, only small kernels are allowed", "catalogue")]
    return []


def _bilinear(operation: Any) -> Found:
    """Remarks on bilinear resizing: only integer factors without align_corners have a small kernel of fixed weights."""
    result = [("is computed in software on the M1 and similar chips, natively on later chips", "catalogue")]
    if operation.op_type == "upsample_bilinear":
        if operation.align_corners.val:
            result.append(("aligns corners, so its weights differ from pixel to pixel", "reasoned"))
        return result
    height, width = operation.x.shape[-2:]
    rows, columns = operation.outputs[0].shape[-2:]
    if rows % height or columns % width:
        result.append((f"resizes {height}x{width} to {rows}x{columns}, which is not an integer factor", "reasoned"))
    if operation.sampling_mode.val != "UNALIGN_CORNERS":
        result.append((f"samples by {operation.sampling_mode.val}, so its weights differ", "reasoned"))
    return result


def _nearest(operation: Any) -> Found:
    return [("is computed in software on the M1 and similar chips, natively on later chips", "catalogue")]


def _gather(operation: Any) -> Found:
    return [("gathers, which the M1 supports within narrow limits only and earlier reports say not at all", "hollance")]


def _pad(operation: Any) -> Found:
    amounts = list(operation.pad.val)
    channels = amounts[-6:-4] if len(amounts) >= 6 else []
    return [("pads channels, which the engine refuses", "rules")] if any(channels) else []


def _transpose(operation: Any) -> Found:
    return [("moves the whole tensor in memory", "apple")]


def _reshape(operation: Any) -> Found:
    return (
        [] if list(operation.x.shape) == list(operation.outputs[0].shape) else [("may copy the whole tensor", "apple")]
    )


def _arg_max(operation: Any) -> Found:
    classes = operation.x.shape[int(operation.axis.val)]
    if classes > _LARGEST_ARGMAX:
        return [(f"compares {classes} channels, more than the {_LARGEST_ARGMAX} allowed", "rules")]
    return []


def _cast(operation: Any) -> Found:
    """Remarks on a cast; only one to integers: every such program casts its result from float16 to float32."""
    if operation.dtype.val != "int32":
        return []
    return [("computes integers, which the M1 leaves to the CPU", "catalogue")]


_RULES: dict[str, Callable[[Any], Found]] = {
    "conv": _convolution,
    "conv_transpose": _transposed,
    "upsample_bilinear": _bilinear,
    "resize_bilinear": _bilinear,
    "upsample_nearest_neighbor": _nearest,
    "gather": _gather,
    "pad": _pad,
    "transpose": _transpose,
    "reshape": _reshape,
    "reduce_argmax": _arg_max,
    "cast": _cast,
}
