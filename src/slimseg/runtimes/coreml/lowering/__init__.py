"""How each layer of the vocabulary is said in MIL, Core ML's language: one function per layer class, NCHW throughout.

A lowering either builds operations whose last value is the node's, or raises Unsupported with the reason. It stands in
one of the files here, whose table `LOWERINGS` names its class.
"""

from __future__ import annotations

from slimseg.runtimes.coreml.lowering import activation, arithmetic, convolution, layout, pooling, resize
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var
from slimseg.runtimes.lowering import Refusals

_ROOMS = (activation, arithmetic, convolution, layout, pooling, resize)
LOWERINGS: Lowerings = {kind: lowering for room in _ROOMS for kind, lowering in room.LOWERINGS.items()}
REFUSALS: Refusals = {}

__all__ = ["LOWERINGS", "REFUSALS", "Step", "Var"]
