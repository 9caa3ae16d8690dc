"""What operators of a file are called: each after the layer of the network that works in it.

A convolution takes in the padding before it, and the batch norm and the activation behind it. Its result carries the
name of the node whose value that is, the activation; the operator itself has the name of the convolution. Both are
in a text that slimseg's files carry, a line for each operator whose name is not simply that of its result:

    relu_1 conv_1 pad_1 conv_1 norm_1 relu_1    its result, its name, and the nodes of the network that it computes
    swish_gate swish_gate swish                 an operator that does a part of a layer's work has a name of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # files are read without torch, too
    from torch import fx

    from slimseg.graph.graph import Graph

_LONGEST_TEXT = 4 << 20  # bytes; a network of a thousand operators has about 100 kB


@dataclass(frozen=True)
class OperatorName:
    """`covers`: the nodes that it computes, in the network's order; of one that does a part of a layer, that layer.

    Empty in files from elsewhere.
    """

    name: str
    covers: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """The layer that it works for."""
        return worker(self.name, self.covers)


def worker(name: str, covers: tuple[str, ...]) -> str:
    """The layer that an operator works for: that of its own name, unless it only does a part of another."""
    return name if name in covers or not covers else covers[0]


def folded_into(graph: Graph, folded: Graph) -> dict[str, tuple[str, ...]]:
    """By layer of `folded`: the layers behind it, as `graph` has them, that were folded into it, in order."""
    kept = {node.name for node in folded.layers()}
    hosts: dict[fx.Node, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.layers():
        if node.name not in kept:
            source = node.all_input_nodes[0]
            host = hosts[node] = hosts.get(source, source.name)
            found[host] = (*found.get(host, ()), node.name)
    return found


def to_text(names: Mapping[str, OperatorName]) -> bytes:
    """By result. Names with blanks, which the nodes of a network never have, are left out."""
    plain = {result: (OperatorName(result), OperatorName(result, (result,))) for result in names}
    lines = ([result, each.name, *each.covers] for result, each in names.items() if each not in plain[result])
    return "\n".join(" ".join(line) for line in lines if not any(set(word) & set(" \n") for word in line)).encode()


def of_text(text: bytes) -> dict[str, OperatorName]:
    """By result, what `to_text` wrote; lines that say nothing are passed over."""
    lines = (line.split(" ") for line in text[:_LONGEST_TEXT].decode(errors="replace").split("\n"))
    return {line[0]: OperatorName(line[1], tuple(line[2:])) for line in lines if len(line) > 2 and all(line)}
