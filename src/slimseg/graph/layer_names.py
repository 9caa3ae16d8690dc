"""Names the operators of a file after the layers of the network that they compute.

A fused convolution includes the padding before it, and the batch norm and the activation after it. Its result has the
name of the last node, the activation; the operator itself has the name of the convolution. Files of slimseg store both
names in a text, with a line for each operator whose name differs from that of its result:

    relu_1 conv_1 pad_1 conv_1 norm_1 relu_1    its result, its name, and the nodes of the network that it computes
    swish_gate swish_gate swish                 an operator that computes part of a layer has its own name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # reading files does not need torch
    from torch import fx

    from slimseg.graph.graph import Graph

_LONGEST_TEXT = 4 << 20  # bytes; a network of a thousand operators has about 100 kB


@dataclass(frozen=True)
class OperatorName:
    """The name of an operator, and in `covers` the nodes that it computes, in the network's order.

    An operator that computes part of a layer covers that layer. `covers` is empty in files that slimseg did not write.
    """

    name: str
    covers: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """The layer that it computes, wholly or in part."""
        return worker(self.name, self.covers)


def worker(name: str, covers: tuple[str, ...]) -> str:
    """The layer that an operator computes: the one it is named after, or the one that it computes part of."""
    return name if name in covers or not covers else covers[0]


def folded_into(graph: Graph, folded: Graph) -> dict[str, tuple[str, ...]]:
    """For every layer of `folded`, by name: the layers after it in `graph` that were folded into it, in order."""
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
    """The text of operator names by result. Names with blanks, which nodes of a network never have, are left out."""
    plain = {result: (OperatorName(result), OperatorName(result, (result,))) for result in names}
    lines = ([result, each.name, *each.covers] for result, each in names.items() if each not in plain[result])
    return "\n".join(" ".join(line) for line in lines if not any(set(word) & set(" \n") for word in line)).encode()


def of_text(text: bytes) -> dict[str, OperatorName]:
    """Operator names by result, from a text of `to_text`; lines that are too short or malformed are skipped."""
    lines = (line.split(" ") for line in text[:_LONGEST_TEXT].decode(errors="replace").split("\n"))
    return {line[0]: OperatorName(line[1], tuple(line[2:])) for line in lines if len(line) > 2 and all(line)}
