"""Angles and hyperbolic functions, and rounding to the nearest whole number, in terms of what every runtime has."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slimseg.frontends.aten.decompositions import comparisons

# Odd powers of x from the third on, for |x| <= tan(pi/8) (Moshier, "Cephes", atanf): to 2e-7.
_ARC_TANGENT = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def round_half_to_even(self: Tensor) -> Tensor:
    """The nearest whole number; of two that are equally near, the even one."""
    below = torch.floor(self)
    rest = self - below
    odd = below - torch.floor(below * 0.5) * 2.0
    up: Tensor = comparisons.greater(rest, 0.5) + comparisons.equal(rest, 0.5) * odd
    return below + up


def round_to_decimals(self: Tensor, decimals: int) -> Tensor:
    factor = 10.0**decimals
    return round_half_to_even(self * factor) / factor


def arc_tangent(self: Tensor) -> Tensor:
    """atan x = 2 atan(x / (1 + √(1 + x²))); above 1 it is π/2 - atan(1/x), so that no square is too large."""
    size = torch.abs(self)
    small = comparisons.less_or_equal(size, 1.0)
    ratio = torch.minimum(size, torch.reciprocal(torch.maximum(size, torch.ones_like(size))))
    angle = _of_ratio(ratio)
    return torch.sign(self) * (angle * small + (math.pi / 2 - angle) * (1.0 - small))


def _of_ratio(ratio: Tensor) -> Tensor:
    """The arc tangent of a number from 0 to 1."""
    half = ratio / (torch.sqrt(torch.square(ratio) + 1.0) + 1.0)
    square = torch.square(half)
    series = square * _ARC_TANGENT[0] + _ARC_TANGENT[1]
    for factor in _ARC_TANGENT[2:]:
        series = series * square + factor
    return (series * square * half + half) * 2.0


def angle_of(self: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, self) in all four quadrants."""
    up, along = torch.abs(self), torch.abs(other)
    most = torch.maximum(up, along)
    ratio = torch.minimum(up, along) / (most + comparisons.equal(most, 0.0))
    steep = comparisons.greater(up, along)
    angle = _of_ratio(ratio)
    angle = angle * (1.0 - steep) + (math.pi / 2 - angle) * steep
    left = comparisons.less(other, 0.0)
    angle = angle * (1.0 - left) + (math.pi - angle) * left
    return angle * (1.0 - comparisons.less(self, 0.0) * 2.0)


def arc_sine(self: Tensor) -> Tensor:
    return arc_tangent(self / (torch.sqrt(1.0 - torch.square(self)) + 1.0)) * 2.0


def arc_cosine(self: Tensor) -> Tensor:
    return math.pi / 2 - arc_sine(self)


def tangent(self: Tensor) -> Tensor:
    return torch.sin(self) / torch.cos(self)


def hyperbolic_sine(self: Tensor) -> Tensor:
    return (torch.exp(self) - torch.exp(self * -1.0)) * 0.5


def hyperbolic_cosine(self: Tensor) -> Tensor:
    return (torch.exp(self) + torch.exp(self * -1.0)) * 0.5


def inverse_hyperbolic_sine(self: Tensor) -> Tensor:
    size = torch.abs(self)
    return torch.sign(self) * torch.log(size + torch.sqrt(torch.square(size) + 1.0))


def inverse_hyperbolic_cosine(self: Tensor) -> Tensor:
    return torch.log(self + torch.sqrt(torch.square(self) - 1.0))


def inverse_hyperbolic_tangent(self: Tensor) -> Tensor:
    return torch.log((self + 1.0) / (1.0 - self)) * 0.5


def hypotenuse(self: Tensor, other: Tensor) -> Tensor:
    return torch.sqrt(torch.square(self) + torch.square(other))


def with_sign_of(self: Tensor, other: Any) -> Tensor:
    """The size of one value and the sign of another; zero is positive."""
    size = torch.abs(self)
    if not isinstance(other, Tensor):
        return size * math.copysign(1.0, other)
    return size * (1.0 - comparisons.less(other, 0.0) * 2.0)


def is_negative(self: Tensor) -> Tensor:
    return comparisons.less(self, 0.0)


TABLE = {
    "round.default": round_half_to_even,
    "round.decimals": round_to_decimals,
    "atan.default": arc_tangent,
    "atan2.default": angle_of,
    "asin.default": arc_sine,
    "acos.default": arc_cosine,
    "tan.default": tangent,
    "sinh.default": hyperbolic_sine,
    "cosh.default": hyperbolic_cosine,
    "asinh.default": inverse_hyperbolic_sine,
    "acosh.default": inverse_hyperbolic_cosine,
    "atanh.default": inverse_hyperbolic_tangent,
    "hypot.default": hypotenuse,
    "signbit.default": is_negative,
    **{f"copysign.{form}": with_sign_of for form in ("Tensor", "Scalar")},
}
