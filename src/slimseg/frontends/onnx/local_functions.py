"""Functions that a file defines itself, as some exporters write modules: their operators take the place of calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from slimseg.errors import ModelError

MAX_NODES = 10_000  # operators of a file, those of functions counted at every call
MAX_DEPTH = 32  # calls within calls; a function that calls itself has no end

Names = Mapping[str, str]


@dataclass
class Functions:
    """The functions of one file, by domain and name."""

    path: Path
    known: Mapping[tuple[str, str], FunctionProto]
    calls: Iterator[int] = field(default_factory=count)
    made: int = 0  # operators so far

    @staticmethod
    def of(path: Path, proto: ModelProto) -> Functions:
        return Functions(path, {(each.domain, each.name): each for each in proto.functions})

    def expanded(self, nodes: Iterable[NodeProto]) -> Iterator[tuple[NodeProto, Names]]:
        """The operators, those of functions in place of their calls; and how the values of a function are called.

        Raises:
            ModelError: they are more than any network has.
        """
        for node in nodes:
            if (node.domain, node.op_type) in self.known:
                yield from self._body(node, {}, 0)
            else:
                yield node, {}

    def _body(self, call: NodeProto, outside: Names, depth: int) -> Iterator[tuple[NodeProto, Names]]:
        function = self.known[call.domain, call.op_type]
        if depth > MAX_DEPTH:
            raise ModelError(f"{self.path} has functions that call each other without an end: export it again")
        names = self._names(call, function, outside)
        given = {each.name: each for each in (*function.attribute_proto, *call.attribute)}
        for node in function.node:
            self.made += 1
            if self.made > MAX_NODES:
                raise ModelError(f"{self.path} has more than the {MAX_NODES} operators that slimseg opens")
            own = _with_attributes(node, given)
            if (own.domain, own.op_type) in self.known:
                yield from self._body(own, names, depth + 1)
            else:
                yield own, names

    def _names(self, call: NodeProto, function: FunctionProto, outside: Names) -> Names:
        """What the values of the function are called in this call; arguments that are left out have no name."""
        prefix = f"{call.name or call.op_type}#{next(self.calls)}/"
        names = {name: prefix + name for node in function.node for name in node.output if name}
        for formal, actual in ((function.input, call.input), (function.output, call.output)):
            named = [outside.get(name, name) for name in actual]
            names.update(zip(formal, [*named, *[""] * len(formal)][: len(formal)], strict=True))
        return names


def _with_attributes(node: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    """A copy of a function's operator, with the attributes of the call that it refers to."""
    own = NodeProto()
    own.CopyFrom(node)
    referring: Sequence[AttributeProto] = [each for each in own.attribute if each.ref_attr_name]
    for each in referring:
        name, reference = each.name, each.ref_attr_name
        own.attribute.remove(each)
        if reference in given:
            added = own.attribute.add()
            added.CopyFrom(given[reference])
            added.name = name
    return own
