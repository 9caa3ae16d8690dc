"""The ATen operators that a file may call: those that networks for images consist of, and no others.

Opening a file runs its operators: on shapes, on constants, and once as a whole. An operator may be called if

1. its name is in the list below: plain arithmetic, reductions, layers, moving values, constants. Only listed operators
   are allowed, as torch has some 3,000, among them ones that read and write files (`from_file`), change the memory of
   others (`set_`, `resize_`), read memory that was never written (`empty`) or draw random numbers, and vendor-specific
   kernels that trust their arguments;
2. no required argument is a generator, a storage or a stream: it takes tensors, numbers, truth values and plain words,
   and returns tensors;
3. it returns the same at every call, and its arguments' shapes determine the number and sizes of its results;
4. it writes to no argument, except for the form with an underscore (`relu_`), which may overwrite an activation.
"""

from __future__ import annotations

import re
from functools import cache

import torch
from torch import Tag
from torch._ops import OpOverload

_ARITHMETIC = """
abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil
celu clamp clamp_max clamp_min clip copysign cos cosh deg2rad div divide elu eq erf erfc exp exp2 expm1 fill
float_power floor floor_divide fmod frac ge gelu glu greater greater_equal gt hardshrink hardsigmoid hardswish
hardtanh hypot isfinite isinf isnan le leaky_relu lerp less less_equal log log10 log1p log2 log_sigmoid logaddexp
logical_and logical_not logical_or logical_xor logit lt masked_fill maximum minimum mish mul multiply nan_to_num ne
neg negative not_equal positive pow prelu rad2deg reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid
sign silu sin sinc sinh softplus softshrink sqrt square sub subtract tan tanh threshold true_divide trunc where xlogy
zero
"""
_REDUCTIONS = """
all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum frobenius_norm linalg_norm
linalg_vector_norm logcumsumexp logsumexp max mean median min norm norm_except_dim prod sort std std_mean sum topk var
var_mean
"""
_LAYERS = """
_adaptive_avg_pool2d _convolution _log_softmax _native_batch_norm_legit_no_training _prelu_kernel _safe_softmax
_softmax _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
_weight_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d addbmm addmm addmv
affine_grid_generator avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bmm channel_shuffle col2im conv1d conv2d
conv3d conv_transpose1d conv_transpose2d convolution cosine_similarity dot einsum embedding grid_sampler grid_sampler_2d
group_norm im2col inner instance_norm layer_norm linear log_softmax matmul max_pool1d max_pool2d
max_pool2d_with_indices max_unpool2d mm mv native_batch_norm native_channel_shuffle native_group_norm
native_layer_norm outer pixel_shuffle pixel_unshuffle rms_norm softmax tensordot upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
"""
_LAYOUT = """
_reshape_alias _to_copy _unsafe_view alias atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to cat chunk
clone column_stack concat concatenate constant_pad_nd contiguous copy detach detach_copy diag diag_embed diagonal
expand expand_as expand_copy flatten flip fliplr flipud gather hstack index index_add index_copy index_fill index_put
index_select lift_fresh lift_fresh_copy mT meshgrid moveaxis movedim narrow numpy_T pad permute permute_copy ravel
reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d reshape reshape_as roll
rot90 scatter scatter_add select select_copy select_scatter slice slice_copy slice_scatter split split_with_sizes
squeeze squeeze_copy stack swapaxes swapdims t take take_along_dim tensor_split tile to transpose tril triu
type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze unsqueeze_copy view view_as view_copy vstack
"""
_CONSTANTS = """
arange eye full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like
"""
# Operators that draw random numbers if this argument is set, as in training.
DRAWING = {
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
    "rrelu": "training",
    "scaled_dot_product_attention": "dropout_p",
}
# Operators that only check something and return nothing: a network without them computes the same.
ASSERTIONS = frozenset(("_assert_tensor_metadata", "_assert_async", "_assert_scalar"))

_NAMES = frozenset(" ".join((_ARITHMETIC, _REDUCTIONS, _LAYERS, _LAYOUT, _CONSTANTS)).split())
_TARGET = re.compile(r"torch\.ops\.aten\.([A-Za-z][A-Za-z0-9_]*|_[a-z][A-Za-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)")
_PLAIN = re.compile(
    r"(Optional\[)?(List\[)?(Optional\[)?(Tensor|int|SymInt|float|bool|number|str|Device)\]*|Optional\[Generator\]"
)
_PLAINER = {"torch.ops.aten.detach_.default": "torch.ops.aten.detach.default"}  # how torch marks constants
_UNSTEADY = {Tag.nondeterministic_seeded, Tag.dynamic_output_shape, Tag.data_dependent_output, Tag.inplace_view}


def name_of(target: str) -> str | None:
    """The operator's name (`conv2d` of `torch.ops.aten.conv2d.default`); None where it is no ATen operator."""
    match = _TARGET.fullmatch(target)
    return match[1] if match else None


@cache
def operator(target: str) -> OpOverload | None:
    """The operator that a file calls by torch's name for it; None where a file may not call it."""
    match = _TARGET.fullmatch(_PLAINER.get(target, target))
    if match is None:
        return None
    name, overload = match[1], match[2]
    if name.removesuffix("_") not in _NAMES and name.removesuffix("_") not in DRAWING:
        return None
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    return found if isinstance(found, OpOverload) and _is_plain(found) else None


def writes(found: OpOverload) -> bool:
    """Whether an operator overwrites its first argument."""
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in found._schema.arguments)


def _is_plain(found: OpOverload) -> bool:
    schema = found._schema
    name = schema.name.removeprefix("aten::")
    written = [argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write]
    if written and not (name.endswith("_") and written == [schema.arguments[0].name]):
        return False
    if not all(_PLAIN.fullmatch(str(argument.type)) for argument in schema.arguments):
        return False
    if {str(result.type) for result in schema.returns} not in ({"Tensor"}, {"List[Tensor]"}):
        return False
    steady = name.removesuffix("_") in DRAWING or name == "index"  # indexing by truth values fails: it has no shape
    return steady or not _UNSTEADY & set(found.tags)
