"""Branches that a module takes by what its own buffers and parameters hold: the same for every image.

torch.export traces tensors without values, and stops where a value decides. So the module runs once on a real image,
and the values that decided are noted; the trace is given them again, unless they depend on the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# Methods of tensors that return numbers of Python, by which a module can decide.
_DECIDING = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy")
# Whether values are numbers at all: those of a trained network are, whatever the image shows.
_ALWAYS_NUMBERS = ("isnan", "isinf", "isfinite")


@dataclass(frozen=True)
class Decision:
    method: str
    value: Any
    by_image: bool  # whether the image decides it


class Noting(TorchFunctionMode):
    """Notes every decision, and whether it follows from the image."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.found: list[Decision] = []
        self._from_image = WeakIdKeyDictionary()
        self._from_image[image] = True

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [each for each in tree_leaves((args, dict(kwargs or {}))) if isinstance(each, Tensor)]
        by_image = any(each in self._from_image for each in given)
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _DECIDING:
            self.found.append(Decision(name, result, by_image))
        elif by_image and name not in _ALWAYS_NUMBERS:
            for each in tree_leaves(result):
                if isinstance(each, Tensor):
                    self._from_image[each] = True
        return result


class Repeating(TorchFunctionMode):
    """Gives the noted values again, in the same order; those that the image decides are asked for as ever."""

    def __init__(self, decisions: tuple[Decision, ...]) -> None:
        super().__init__()
        self.left: Iterator[Decision] = iter(decisions)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        noted = next(self.left, None) if name in _DECIDING else None
        if noted is None or noted.by_image or noted.method != name:
            return func(*args, **(kwargs or {}))
        return noted.value


def noted(model: nn.Module, image: Tensor) -> tuple[Decision, ...]:
    """The decisions of one run, if at least one of them does not follow from the image; else none."""
    mode = Noting(image)
    try:
        with torch.no_grad(), mode:
            model(image)
    except Exception:  # the trace has failed for a reason of its own, and says it
        return ()
    return () if all(each.by_image for each in mode.found) else tuple(mode.found)
