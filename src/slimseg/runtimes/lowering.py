"""What the writers of all runtimes share.

Every runtime has a table of lowerings by layer class, and a table of refusals: layer classes that it cannot express,
each with the reason. Together they contain every class of the vocabulary except those that are folded away before
(`fold.FOLDED`), and attention, which is written as several layers (`written_out.WRITTEN_OUT`); tests check that.
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
_NAMED = 3  # most layers that a message names
_Spelling = TypeVar("_Spelling")


def without_lowering(graph: Graph, lowerings: Collection[type[nn.Module]], refusals: Refusals) -> str:
    """The layers of a folded graph that a runtime has no lowering for, by name, and the runtime's reasons.

    Empty if every layer has a lowering. A subclass does not inherit the lowering of its class: it may compute
    something else.
    """
    found = {node.name: type(graph.layer(node)) for node in graph.layers()}
    missing = {name: kind for name, kind in found.items() if kind not in lowerings}
    names = ", ".join([*missing][:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    reasons = [reason for kind, reason in refusals.items() if kind in missing.values()]
    return "; ".join([names, *reasons])


def spelling(table: Mapping[str, _Spelling], function: str, name: str, runtime: str) -> _Spelling:
    """A runtime's name for the function of a `Unary` layer.

    Args:
        table: the runtime's names, by function.
        name: the layer's name, for the error.

    Raises:
        Unsupported: the runtime's table does not contain the function.
    """
    if function not in table:
        raise Unsupported(f"{name}: {runtime} has no operator for the function {function}")
    return table[function]


def weights(tensor: torch.Tensor, order: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
    """A layer's constant as a contiguous float32 array, its dimensions permuted to `order` if that is given."""
    value = tensor.detach().cpu().float()
    return np.ascontiguousarray((value.permute(*order) if order else value).numpy(), np.float32)
