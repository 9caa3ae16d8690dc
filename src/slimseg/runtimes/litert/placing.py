"""What follows from which operators a processor takes: its parts of the network, and the copies between processors."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from slimseg.tflite.file import Operator


def copies(operators: Sequence[Operator], taken: Collection[int]) -> int:
    """Number of tensors that are copied between the processor and the CPU in one inference, without input and output.

    Args:
        operators: of the whole network, in the file's order.
        taken: numbers of the operators that the processor takes.
    """
    where = {tensor: each.index in taken for each in operators for tensor in each.outputs}
    crossing = {
        (tensor, each.index in taken)
        for each in operators
        for tensor in each.inputs
        if tensor in where and where[tensor] != (each.index in taken)
    }
    return len(crossing)


def runs(operators: Sequence[Operator], taken: Collection[int]) -> int:
    """Number of unbroken runs of taken operators, in the file's order: most parts into which a network can fall."""
    flags = [each.index in taken for each in operators]
    return sum(flag and not before for before, flag in zip([False, *flags], flags, strict=False))
