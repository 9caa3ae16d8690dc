"""The cost of operators, measured by running them on tensors without data, and how much of it a file may ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from slimseg.errors import ModelError

_WINDOWS = frozenset(("max_pool2d_with_indices", "avg_pool2d", "avg_pool3d"))  # read kernel_size values for each result


class Effort(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-accumulates, and values read and written, by the operators that run within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.operations += int(flop_registry[packet](*args, **kwargs, out_val=result)) // 2
        elif packet.__name__ in _WINDOWS:
            self.operations += values_of(result) * math.prod(args[1])
        self.operations += values_of((args, result))
        return result


def values_of(value: Any) -> int:
    """Number of values in a tensor, or in all tensors of nested lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel()
    return sum(map(values_of, value)) if isinstance(value, list | tuple) else 0


def bytes_of(value: Any) -> int:
    """Bytes of a tensor, if all its values are stored, or of all tensors of nested lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0


class Allowance:
    """How much memory and work the constants of a file may take, in proportion to the file's size.

    Constants are expanded, reshaped and multiplied when a file is opened (weight normalisation, tables of positions). A
    file of 50 kB may ask for less of this than one of 50 MB.
    """

    FREE_BYTES = 128 << 20
    TIMES = 4
    OPERATIONS = 2 * 10**10

    def __init__(self, source: str, held_bytes: int) -> None:
        self.source = source
        self.bytes = self.FREE_BYTES + self.TIMES * held_bytes
        self.operations = self.OPERATIONS

    def spend(self, name: str, size_bytes: int, operations: int = 0) -> None:
        """Subtract a cost from what is left.

        Raises:
            ModelError: too little is left; the message names the constant `name`.
        """
        self.bytes -= size_bytes
        self.operations -= operations
        if self.bytes < 0 or self.operations < 0:
            raise ModelError(
                f"{self.source} computes constants that are far larger than the file (at {name}): "
                "export the network again with its constants as buffers"
            )


def without_data(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type that holds nothing."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
