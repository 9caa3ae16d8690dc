"""A traced network in the form that `frontends.torch` reads: ATen calls in order, parameters, named outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from slimseg.errors import ModelError
from slimseg.frontends.aten.call import Parameter
from slimseg.frontends.aten.effort import Allowance
from slimseg.graph.graph import Weights


@dataclass(frozen=True)
class Program:
    """`graph` calls ATen operators and Python's getitem; `meta["val"]` of every node is its value without data.

    `parameters`: by placeholder. `outputs`: label and node of every tensor that the network returns. `allowance`: what
    the constants may cost (None: the network is the user's own code); `meta["operations"]` of a node is what it costs.
    """

    graph: fx.Graph
    image: fx.Node
    parameters: Mapping[fx.Node, Parameter]
    outputs: Sequence[tuple[str, fx.Node]]
    allowance: Allowance | None = None
    notes: tuple[str, ...] = ()
    weights: Weights = "float32"  # the precision of the source's weights; `parameters` are float32 in any case


def exported(program: ExportedProgram, labels: Sequence[str], notes: tuple[str, ...], name: str) -> Program:
    """The Program of a module that torch.export traced; `labels` of its outputs, in order; `notes` on the tracing.

    Raises:
        ModelError: it takes any input other than one image.
    """
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    images, parameters = [], {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            images.append(node)
        elif spec.target is not None:
            value = program.state_dict.get(spec.target, program.constants.get(spec.target))
            if not isinstance(value, Tensor):
                raise ModelError(f"the model's value {spec.target} is not a tensor")
            tensor = value.detach().clone()
            trainable = spec.kind is InputKind.PARAMETER
            parameters[node] = Parameter(spec.target, nn.Parameter(tensor) if trainable else tensor)
    if len(images) != 1:
        raise ModelError(f"{name} takes {len(images)} inputs, not one image")
    (end,) = [node for node in program.graph.nodes if node.op == "output"]
    returned = [
        node
        for node, spec in zip(end.args[0], program.graph_signature.output_specs, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT
    ]  # other outputs are buffers that the network changes
    labels = labels[-len(returned) :]  # torch may trace twice, which collects the labels twice
    outputs = [(label, node) for label, node in zip(labels, returned, strict=True) if isinstance(node, fx.Node)]
    return Program(program.graph, images[0], parameters, outputs, notes=notes)
