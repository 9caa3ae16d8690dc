"""Comparisons, whose truth values are 1 and 0, and what chooses between values by them.

A runtime's network holds numbers only, so a choice is a sum of products: of one value with the truth value, of the
other with one minus it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_LARGEST = float(torch.finfo(torch.float32).max) / 2


def _difference(self: Tensor, other: Any) -> Tensor:
    """In floating point, also of whole numbers, as runtimes have no functions of these."""
    return torch.sub(self.float(), other.float() if isinstance(other, Tensor) else other)


def greater(self: Tensor, other: Any) -> Tensor:
    return F.relu(torch.sign(_difference(self, other)))


def less(self: Tensor, other: Any) -> Tensor:
    return F.relu(torch.sign(_difference(self, other) * -1.0))


def greater_or_equal(self: Tensor, other: Any) -> Tensor:
    return 1.0 - less(self, other)


def less_or_equal(self: Tensor, other: Any) -> Tensor:
    return 1.0 - greater(self, other)


def different(self: Tensor, other: Any) -> Tensor:
    return torch.abs(torch.sign(_difference(self, other)))


def equal(self: Tensor, other: Any) -> Tensor:
    return 1.0 - different(self, other)


def negated(self: Tensor) -> Tensor:
    return 1.0 - self.float()


def both(self: Tensor, other: Tensor) -> Tensor:
    return self.float() * other.float()


def either(self: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(self.float(), other.float())


def one_of_both(self: Tensor, other: Tensor) -> Tensor:
    return different(self.float(), other.float())


def is_infinite(self: Tensor) -> Tensor:
    return greater(torch.abs(self), _LARGEST)


def any_along(self: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    return torch.amax(different(self.float(), 0), dim, keepdim)


def all_along(self: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    return torch.amin(different(self.float(), 0), dim, keepdim)


def is_no_number(self: Tensor) -> Tensor:
    return different(self, self)


def where(condition: Tensor, self: Any, other: Any) -> Tensor:
    chosen = condition.float()
    return _product(self, chosen) + _product(other, 1.0 - chosen)


def masked_fill(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    return where(mask, value, self)


def _product(value: Any, chosen: Tensor) -> Tensor:
    """A value, or zero where it is not chosen; also of infinite values, whose product with zero is none."""
    if not isinstance(value, Tensor):
        return chosen * max(-_LARGEST, min(_LARGEST, float(value)))
    return value.float() * chosen


def threshold(self: Tensor, threshold: float, value: float) -> Tensor:
    return where(self > threshold, self, value)


def hardshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    return self * (torch.abs(self) > lambd)


TABLE = {
    **{f"{name}.{form}": greater for name in ("gt", "greater") for form in ("Scalar", "Tensor")},
    **{f"{name}.{form}": less for name in ("lt", "less") for form in ("Scalar", "Tensor")},
    **{f"{name}.{form}": greater_or_equal for name in ("ge", "greater_equal") for form in ("Scalar", "Tensor")},
    **{f"{name}.{form}": less_or_equal for name in ("le", "less_equal") for form in ("Scalar", "Tensor")},
    **{f"{name}.{form}": different for name in ("ne", "not_equal") for form in ("Scalar", "Tensor")},
    **{f"eq.{form}": equal for form in ("Scalar", "Tensor")},
    **{f"{name}.default": negated for name in ("logical_not", "bitwise_not")},
    **{f"{name}": both for name in ("logical_and.default", "bitwise_and.Tensor")},
    **{f"{name}": either for name in ("logical_or.default", "bitwise_or.Tensor")},
    **{f"where.{form}": where for form in ("self", "ScalarSelf", "ScalarOther", "Scalar")},
    **{f"masked_fill.{form}": masked_fill for form in ("Scalar", "Tensor")},
    **dict.fromkeys(("logical_xor.default", "bitwise_xor.Tensor"), one_of_both),
    "isnan.default": is_no_number,
    "isinf.default": is_infinite,
    "any.dim": any_along,
    "all.dim": all_along,
    "threshold.default": threshold,
    "hardshrink.default": hardshrink,
}
