"""Elementwise functions, in terms of those that every runtime has."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Number = int | float
_SMALLEST = float(torch.finfo(torch.float32).tiny)
_MOST_FACTORS = 32  # of a product along a dimension
_SMALLEST_THRESHOLD = 15.0  # above it softplus is its asymptote, also in float32: log(1 + exp(-15)) is 3e-7


def clamp(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Bounds that are numbers, one of them or both, or tensors."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        low = self if min is None else torch.maximum(self, _tensor(min))
        return low if max is None else torch.minimum(low, _tensor(max))
    return F.hardtanh(self, -math.inf if min is None else float(min), math.inf if max is None else float(max))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((), float(value))


def clamp_min(self: Tensor, min: Any) -> Tensor:
    return clamp(self, min)


def clamp_max(self: Tensor, max: Any) -> Tensor:
    return clamp(self, None, max)


def relu6(self: Tensor) -> Tensor:
    return F.relu6(self)


def softplus(self: Tensor, beta: Number = 1, threshold: Number = 20) -> Tensor:
    """log(1 + exp(βx)) / β = (max(βx, 0) + log(1 + exp(-|βx|))) / β, which does not overflow."""
    x = self if beta == 1 else self * beta
    rest = torch.log(torch.exp(torch.abs(x) * -1.0) + 1.0)
    if threshold < _SMALLEST_THRESHOLD:
        rest = rest * (x <= threshold)
    result = torch.relu(x) + rest
    return result if beta == 1 else result / beta


def mish(self: Tensor) -> Tensor:
    return self * torch.tanh(softplus(self))


def log_sigmoid(self: Tensor) -> Tensor:
    return softplus(self * -1.0) * -1.0


def elu(self: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Tensor:
    """scale · (max(x, 0) + α·(exp(min(input_scale·x, 0)) - 1))."""
    if alpha == scale == input_scale == 1:
        raise NotImplementedError("the handler's own")
    x = self if input_scale == 1 else self * input_scale
    positive = torch.relu(self) if scale == 1 else torch.relu(self) * scale
    return positive + (torch.exp(clamp_max(x, 0)) - 1.0) * (alpha * scale)


def celu(self: Tensor, alpha: Number = 1) -> Tensor:
    if alpha == 1:
        return F.elu(self)
    return elu(self, alpha, 1, 1 / alpha)


def selu(self: Tensor) -> Tensor:
    return elu(self, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def glu(self: Tensor, dim: int = -1) -> Tensor:
    half = self.shape[dim] // 2
    return self.narrow(dim, 0, half) * torch.sigmoid(self.narrow(dim, half, half))


def softshrink(self: Tensor, lambd: Number = 0.5) -> Tensor:
    return self - F.hardtanh(self, -float(lambd), float(lambd))


def ceil(self: Tensor) -> Tensor:
    return torch.neg(torch.floor(torch.neg(self)))


def expm1(self: Tensor) -> Tensor:
    return torch.exp(self) - 1.0


def log1p(self: Tensor) -> Tensor:
    return torch.log(self + 1.0)


def exp2(self: Tensor) -> Tensor:
    return torch.exp(self * math.log(2))


def log2(self: Tensor) -> Tensor:
    return torch.log(self) / math.log(2)


def log10(self: Tensor) -> Tensor:
    return torch.log(self) / math.log(10)


def power(self: Tensor, exponent: Number) -> Tensor:
    """Whole and half exponents as products and roots; others by logarithms, which need values above zero."""
    if exponent == 0:
        return self * 0.0 + 1.0
    if exponent < 0:
        return torch.reciprocal(self if exponent == -1 else torch.pow(self, -exponent))
    whole, rest = divmod(exponent, 1)
    if whole > 8 or rest not in (0, 0.5):
        return torch.exp(torch.log(self) * exponent)
    factors = _factors(self, int(whole)) + ([torch.sqrt(self)] if rest else [])
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def _factors(x: Tensor, exponent: int) -> list[Tensor]:
    """Powers of two of x whose product is x to a whole exponent."""
    found = []
    while exponent:
        if exponent % 2:
            found.append(x)
        exponent //= 2
        x = torch.square(x) if exponent else x
    return found


def power_of_tensor(self: Number, exponent: Tensor) -> Tensor:
    return torch.exp(exponent * math.log(self))


def add(self: Any, other: Any, alpha: Number = 1) -> Tensor:
    if alpha == 1:
        raise NotImplementedError("the handler's own")
    return torch.add(self, torch.mul(other, alpha))


def subtract(self: Any, other: Any, alpha: Number = 1) -> Tensor:
    return add(self, other, -alpha)


def reverse_subtract(self: Any, other: Any, alpha: Number = 1) -> Tensor:
    return add(other, self, -alpha)


def addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Number = 1) -> Tensor:
    product = torch.mul(tensor1, tensor2)
    return torch.add(self, product if value == 1 else torch.mul(product, value))


def addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Number = 1) -> Tensor:
    quotient = torch.div(tensor1, tensor2)
    return torch.add(self, quotient if value == 1 else torch.mul(quotient, value))


def lerp(self: Tensor, end: Tensor, weight: Any) -> Tensor:
    return torch.add(self, torch.mul(torch.sub(end, self), weight))


def copy(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return src.expand(self.shape)


def maximum_with(self: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(self, other)


def minimum_with(self: Tensor, other: Tensor) -> Tensor:
    return torch.minimum(self, other)


def _of_equal_rank(together: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A maximum or minimum with a constant of fewer dimensions."""

    def run(self: Tensor, other: Tensor) -> Tensor:
        if self.ndim == other.ndim:
            raise NotImplementedError("the handler's own")
        rank = max(self.ndim, other.ndim)
        first, second = (each.reshape((1,) * (rank - each.ndim) + tuple(each.shape)) for each in (self, other))
        return together(first, second)

    return run


def finite(self: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """What replaces infinities and NaN: no value that a trained network computes is one of them."""
    return self


def divide(self: Any, other: Any, rounding_mode: str | None = None) -> Tensor:
    quotient = torch.div(self, other)
    if rounding_mode == "floor":
        return torch.floor(quotient)
    return quotient if rounding_mode is None else torch.sign(quotient) * torch.floor(torch.abs(quotient))


def truncate(self: Tensor) -> Tensor:
    return torch.sign(self) * torch.floor(torch.abs(self))


def fraction(self: Tensor) -> Tensor:
    return self - truncate(self)


def error_function(self: Tensor) -> Tensor:
    """To 1.5e-7 (Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 7.1.26)."""
    x = torch.abs(self)
    t = torch.reciprocal(x * 0.3275911 + 1.0)
    series = t * 1.061405429 - 1.453152027
    for term in (1.421413741, -0.284496736, 0.254829592):
        series = series * t + term
    return torch.sign(self) * (1.0 - series * t * torch.exp(torch.square(x) * -1.0))


def complement_of_error_function(self: Tensor) -> Tensor:
    return 1.0 - error_function(self)


def times_logarithm(self: Any, other: Any) -> Tensor:
    """x·log y, and 0 for x = 0 whatever y is."""
    logarithm = torch.log(clamp_min(other, _SMALLEST)) if isinstance(other, Tensor) else math.log(other)
    return torch.mul(self, logarithm) if isinstance(self, Tensor) else torch.mul(logarithm, self)


def power_of_both(self: Tensor, exponent: Tensor) -> Tensor:
    """By logarithms, which need values above zero."""
    return torch.exp(torch.log(self) * exponent)


def product_along(self: Tensor, dim: int, keepdim: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    if self.shape[dim] > _MOST_FACTORS:
        raise NotImplementedError("many factors")
    result: Tensor = functools.reduce(torch.mul, torch.split(self, 1, dim))
    return result if keepdim else result.squeeze(dim)


def remainder(self: Tensor, other: Any) -> Tensor:
    """What floor division leaves, with the sign of the divisor."""
    result: Tensor = self - torch.floor(self / other) * other
    return result


def remainder_of_truncation(self: Tensor, other: Any) -> Tensor:
    result: Tensor = self - truncate(self / other) * other
    return result


TABLE = {
    "erf.default": error_function,
    "erfc.default": complement_of_error_function,
    "nan_to_num.default": finite,
    **{f"{name}.{form}": times_logarithm for name in ("xlogy", "special_xlogy") for form in ("Tensor", "Scalar_Other")},
    "pow.Tensor_Tensor": power_of_both,
    "prod.dim_int": product_along,
    "ceil.default": ceil,
    "trunc.default": truncate,
    "fix.default": truncate,
    "frac.default": fraction,
    **{f"remainder.{form}": remainder for form in ("Scalar", "Tensor")},
    **{f"fmod.{form}": remainder_of_truncation for form in ("Scalar", "Tensor")},
    "div.Tensor_mode": divide,
    "div.Scalar_mode": divide,
    "clamp.default": clamp,
    "clamp.Tensor": clamp,
    "clip.default": clamp,
    "clamp_min.default": clamp_min,
    "clamp_min.Tensor": clamp_min,
    "clamp_max.default": clamp_max,
    "clamp_max.Tensor": clamp_max,
    "softplus.default": softplus,
    "mish.default": mish,
    "log_sigmoid.default": log_sigmoid,
    "log_sigmoid_forward.default": log_sigmoid,
    "elu.default": elu,
    "celu.default": celu,
    "selu.default": selu,
    "glu.default": glu,
    "softshrink.default": softshrink,
    "expm1.default": expm1,
    "log1p.default": log1p,
    "exp2.default": exp2,
    "log2.default": log2,
    "log10.default": log10,
    "pow.Tensor_Scalar": power,
    "pow.Scalar": power_of_tensor,
    "add.Tensor": add,
    "add.Scalar": add,
    "sub.Tensor": subtract,
    "sub.Scalar": subtract,
    "rsub.Tensor": reverse_subtract,
    "rsub.Scalar": reverse_subtract,
    "addcmul.default": addcmul,
    "addcdiv.default": addcdiv,
    "lerp.Scalar": lerp,
    "lerp.Tensor": lerp,
    "copy.default": copy,
    "maximum.default": _of_equal_rank(torch.maximum),
    "minimum.default": _of_equal_rank(torch.minimum),
    "max.other": maximum_with,
    "min.other": minimum_with,
}
