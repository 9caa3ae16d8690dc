"""The order in which a file's operators can be computed.

In ONNX one input, constant or operator makes each value. A file should list an operator after those whose values it
reads. Enough files do not, so runtimes sort the operators, and so does this module. Operators that cannot be sorted
wait for each other; such a file is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from slimseg.errors import ModelError, printable
from slimseg.frontends.onnx.reader import Model, Node

_SHOWN = 3  # operators of a circle that a message names
_GIVEN = -1  # stands for an operator's number where an input or a constant makes the value


def ordered(model: Model) -> tuple[Node, ...]:
    """The operators, each after those whose values it reads; in the file's order if that is so already.

    Raises:
        ModelError: a value is made twice or never, or operators read each other's values in a circle.
    """
    makers = _makers(model)
    sources = [_sources(model, node, makers) for node in model.nodes]
    if all(source < number for number, before in enumerate(sources) for source in before):
        return model.nodes
    try:
        return tuple(model.nodes[number] for number in TopologicalSorter(dict(enumerate(sources))).static_order())
    except CycleError as error:
        raise ModelError(_circle(model, error.args[1][1:])) from error


def _makers(model: Model) -> dict[str, int]:
    """The number of the operator that makes each value."""
    given = (value.name for value in model.inputs)
    makers = dict.fromkeys((*given, *model.constants), _GIVEN)
    for number, node in enumerate(model.nodes):
        for name in filter(None, node.outputs):
            if name in makers:
                raise ModelError(
                    f"{model.path} is damaged: the operator {node} computes the value {_quoted(name)}, "
                    f"which {_maker(model, makers[name])} already; export the model again"
                )
            makers[name] = number
    return makers


def _sources(model: Model, node: Node, makers: dict[str, int]) -> set[int]:
    """Numbers of the operators whose values `node` reads."""
    names = set(filter(None, node.inputs))
    missing = next((name for name in node.inputs if name and name not in makers), None)
    if missing is not None:
        raise ModelError(
            f"{model.path} is damaged: the operator {node} reads the value {_quoted(missing)}, which nothing computes; "
            "export the model again"
        )
    return {makers[name] for name in names} - {_GIVEN}


def _maker(model: Model, number: int) -> str:
    return "is an input or a constant" if number == _GIVEN else f"is computed by {model.nodes[number]}"


def _circle(model: Model, numbers: Sequence[int]) -> str:
    """The message about operators in a circle, given by their `numbers`."""
    nodes = [model.nodes[number] for number in numbers]
    if len(nodes) == 1:
        return f"{model.path} is damaged: the operator {nodes[0]} reads its own result; export the model again"
    return (
        f"{model.path} is damaged: the operators {_listed(nodes)} read each other's results in a circle; "
        "export the model again"
    )


def _listed(nodes: Sequence[Node]) -> str:
    shown: Iterable[str] = map(str, nodes[:_SHOWN])
    more = len(nodes) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _quoted(name: str) -> str:
    return repr(printable(name[:100]))
