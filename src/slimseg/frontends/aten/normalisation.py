"""Layer, group, instance and RMS norm: the normalisation, and an affine layer if they have a scale or a shift."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from slimseg.frontends.aten.call import Call, Chain, Layer
from slimseg.graph import ops

_FLOAT32_EPSILON = 2.0**-23  # what rms_norm takes if no epsilon is given


def layer_norm(call: Call) -> Layer | Chain | None:
    """Over the last dimensions, as many as `normalized_shape` has."""
    return _last(call, float(call["eps"]), centred=True)


def rms_norm(call: Call) -> Layer | Chain | None:
    epsilon = call["eps"]
    return _last(call, _FLOAT32_EPSILON if epsilon is None else float(epsilon), centred=False)


def group_norm(call: Call) -> Layer | Chain | None:
    rank = len(call.output_shape)
    dims, groups = tuple(range(1, rank)), int(call["num_groups"])
    return _normalised(call, lambda: ops.Normalise(dims, float(call["eps"]), groups), _per_channel(rank))


def instance_norm(call: Call) -> Layer | Chain | None:
    rank = len(call.output_shape)
    if not call["use_input_stats"] or rank < 3:
        return None
    return _normalised(call, lambda: ops.Normalise(tuple(range(2, rank)), float(call["eps"])), _per_channel(rank))


def _last(call: Call, epsilon: float, centred: bool) -> Layer | Chain | None:
    rank, shape = len(call.output_shape), tuple(int(length) for length in call["normalized_shape"])
    dims = tuple(range(rank - len(shape), rank))
    if 0 in dims:
        return None
    return _normalised(call, lambda: ops.Normalise(dims, epsilon, centred=centred), (1,) * (dims[0] - 1) + shape)


def _per_channel(rank: int) -> tuple[int, ...]:
    return (-1,) + (1,) * (rank - 2)


def _normalised(call: Call, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Layer | Chain | None:
    """The normalisation, and behind it the scale and the shift in a shape that broadcasts to an image's values."""
    if call.computes("weight", "bias"):
        return None
    weight, bias = call.tensor("weight"), call.tensor("bias")
    owner = call.owner("weight") if weight is not None else call.owner("bias") if bias is not None else ""
    normal = Layer(build, (call["input"],), "norm", owner)
    if weight is None and bias is None:
        return normal

    def affine() -> nn.Module:
        return ops.Affine(*(None if each is None else _shaped(each, shape) for each in (weight, bias)))

    return Chain((normal, Layer(affine, (0,), "affine", f"{owner}_affine", call.key())))


def _shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    value = tensor.detach().reshape(shape)
    return nn.Parameter(value) if isinstance(tensor, nn.Parameter) else value
