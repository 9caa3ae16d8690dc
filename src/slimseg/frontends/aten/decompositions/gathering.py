"""Values at computed positions, a few for each place: sums of products with truth values, which every runtime has."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from slimseg.frontends.aten.call import Call
from slimseg.frontends.aten.decompositions.positions import taken

_MOST_POSITIONS = 8  # for each place


def gather(
    self: Tensor, dim: int, index: Tensor, sparse_grad: bool = False, positions: list[int] | None = None
) -> Tensor:
    """`positions`: those along `dim`, if they are constants and the same everywhere else."""
    if positions is not None:
        return taken(self, dim, positions)
    chosen = [(self * is_there).sum(dim, keepdim=True) for is_there in _places(self, dim, index)]
    return torch.cat(chosen, dim) if len(chosen) > 1 else chosen[0]


def scatter(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """The same value at all positions."""
    taken_up: Tensor = functools.reduce(torch.maximum, _places(self, dim, index))
    result: Tensor = self * (1.0 - taken_up) + taken_up * value
    return result


def _places(self: Tensor, dim: int, index: Tensor) -> list[Tensor]:
    """For each of the positions: 1 where it is, and 0 elsewhere."""
    dim %= self.ndim
    if index.shape[dim] > _MOST_POSITIONS or any(
        index.shape[each] != self.shape[each] for each in range(self.ndim) if each != dim
    ):
        raise NotImplementedError("many positions")
    numbers = torch.arange(self.shape[dim]).reshape(-1, *(1,) * (self.ndim - dim - 1)).float()
    return [(numbers == index.narrow(dim, number, 1).float()).float() for number in range(index.shape[dim])]


def with_positions(call: Call) -> dict[str, Any]:
    """The arguments of `gather`, with its positions if they are constants."""
    index = call.tensor("index")
    if index is None:
        return dict(call.arguments)
    dim = int(call["dim"]) % index.ndim
    others = [each for each in range(index.ndim) if each != dim]
    along = functools.reduce(lambda rest, each: rest.narrow(each, 0, 1), others, index)
    is_whole = all(index.shape[each] == call.shape("self")[each] for each in others)
    positions = along.flatten().tolist() if is_whole and bool((along == index).all()) else None
    return {**call.arguments, "positions": positions}


TABLE = {"gather.default": gather, "scatter.value": scatter}
PREPARED = {"gather.default": with_positions}
