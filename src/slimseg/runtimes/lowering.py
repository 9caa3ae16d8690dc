"""What the writers of all runtimes share.

Every runtime has a table of lowerings by class of the vocabulary, and one of refusals: classes that it cannot say, and
why. Both together are the vocabulary without what is folded away before (`fold.FOLDED`); tests hold them to that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph.graph import Graph

Refusals = Mapping[type[nn.Module], str]
_NAMED = 3  # layers in a message
_Spelling = TypeVar("_Spelling")


def without_lowering(graph: Graph, lowerings: Collection[type[nn.Module]], refusals: Refusals) -> str:
    """The layers of a folded graph that a runtime has no lowering for, by name, and the reasons that it states.

    Empty if it can say them all. A subclass of a class with a lowering has none itself: it may compute something else.
    """
    found = {node.name: type(graph.layer(node)) for node in graph.layers()}
    missing = {name: kind for name, kind in found.items() if kind not in lowerings}
    names = ", ".join([*missing][:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    reasons = [reason for kind, reason in refusals.items() if kind in missing.values()]
    return "; ".join([names, *reasons])


def spelling(table: Mapping[str, _Spelling], function: str, name: str, runtime: str) -> _Spelling:
    """How a runtime calls one of the functions of a `Unary` layer; `name` is the layer's.

    Raises:
        Unsupported: the runtime's table does not have it.
    """
    if function not in table:
        raise Unsupported(f"{name}: {runtime} has no operator for the function {function}")
    return table[function]


def weights(tensor: torch.Tensor, order: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
    """A layer's constant as a contiguous float32 array, its dimensions in another order if that is given."""
    value = tensor.detach().cpu().float()
    return np.ascontiguousarray((value.permute(*order) if order else value).numpy(), np.float32)
