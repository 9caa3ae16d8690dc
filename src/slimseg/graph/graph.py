"""The one model representation: a torch.fx graph over a small vocabulary, and the meaning of its input and output.

Nodes are `call_module` of a class in `vocabulary.OPERATORS`; all other operations of a source model stay as opaque
`call_function` nodes. Activations are NCHW with batch 1. Every node has its output shape in `meta["shape"]`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor, fx, nn

from slimseg.errors import GraphError
from slimseg.graph import invariants, propagation, saving, twins
from slimseg.graph.description import Description
from slimseg.graph.origin import Origin
from slimseg.graph.shapes import Shape
from slimseg.graph.source_check import OwnRuntime, SourceCheck

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Weights = Literal["float32", "float16"]


class Graph:
    """A segmentation network: trainable `module`, NCHW input size, and its `description`."""

    def __init__(
        self,
        module: fx.GraphModule,
        input_shape: Shape,
        description: Description | None = None,
        name: str = "model",
    ) -> None:
        """Take over `module` (it is edited in place by `refresh`), propagate shapes, check the invariants.

        `input_shape` is (1, channels, height, width).

        Raises:
            GraphError: an invariant does not hold.
        """
        self.module = module
        self.input_shape = input_shape
        self.description = description or Description()
        self.name = name
        self.source: Path | None = None  # the deployable file that it was opened from, if any
        self.origins: tuple[Origin, ...] = ()  # the user's files that it was opened from; empty for a model in memory
        self.weights: Weights = "float32"  # the precision of the weights in the file; in memory they are float32
        self.is_quantised = False  # whether it was opened from a quantised file; its weights are then dequantised
        self.own_runtime: OwnRuntime | None = None  # runs the source that it was opened from; None if nothing can
        self.source_check = SourceCheck(reason="it was not opened from a file or module, or was opened without verify")
        self.guess = ""  # where its preprocessing was guessed from; empty if the user or the file gave it
        self.notes: tuple[str, ...] = ()  # what the user should know about how it was opened
        # By node name, (channels,): how much each output channel matters, measured on images; only measured nodes.
        self.importance: Mapping[str, Tensor] = {}
        self._settle()

    def __call__(self, x: Tensor) -> Tensor:
        """Run on (N, channels, height, width), already preprocessed."""
        return self.module(x)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """A summary: "<Graph camvid_unet: 352x480, 23 layers, 5.86 million parameters, logits>"."""
        height, width = self.input_size
        params = sum(each.numel() for each in self.module.parameters())
        layers = sum(1 for _ in self.layers())
        kind = self.description.output_kind
        return f"<Graph {self.name}: {height}x{width}, {layers} layers, {params / 1e6:.3g} million parameters, {kind}>"

    def save(self, path: str | Path) -> None:
        """Write it as a `.pt2` that `slimseg.load` and PyTorch open; a file already there is replaced atomically.

        Raises:
            OutputError: `path` cannot be written.
        """
        saving.save(self, Path(path))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.input_shape[2], self.input_shape[3]

    @property
    def input(self) -> fx.Node:
        result: fx.Node = next(node for node in self.module.graph.nodes if node.op == "placeholder")
        return result

    @property
    def output(self) -> fx.Node:
        """The node whose value is returned."""
        result = next(node for node in reversed(self.module.graph.nodes) if node.op == "output").args[0]
        assert isinstance(result, fx.Node)
        return result

    def layers(self) -> Iterator[fx.Node]:
        """Nodes that compute something, opaque ones included, in execution order."""
        return (node for node in self.module.graph.nodes if node.op in ("call_module", "call_function"))

    def opaque(self) -> list[fx.Node]:
        return [node for node in self.module.graph.nodes if node.op == "call_function"]

    def node(self, name: str) -> fx.Node:
        """Find a node by name.

        Raises:
            GraphError: there is no such node.
        """
        found: fx.Node | None = next((node for node in self.module.graph.nodes if node.name == name), None)
        if found is not None:
            return found
        raise GraphError(f"graph {self.name} has no node {name!r}")

    def layer(self, node: fx.Node) -> nn.Module | None:
        """The module a node calls; None for inputs, outputs and opaque nodes."""
        if node.op != "call_module":
            return None
        layer = self.module._modules.get(str(node.target))  # `get_submodule` takes five times as long
        return layer if layer is not None else self.module.get_submodule(str(node.target))

    def layer_as(self, node: Any, kind: type[AnyModule] | tuple[type[AnyModule], ...]) -> AnyModule | None:
        """The module that a node calls if it is an instance of `kind`, else None."""
        layer = self.layer(node) if isinstance(node, fx.Node) else None
        return layer if isinstance(layer, kind) else None

    def shape(self, node: fx.Node) -> Shape:
        """Output shape of a node (NCHW, batch 1)."""
        return node.meta["shape"]  # type: ignore[no-any-return]

    def copy(self) -> Graph:
        """An independent copy: editing or training one does not change the other."""
        result = copy.copy(self)  # without __init__'s checks: a copy is as legal, and a search makes hundreds of copies
        result.module = twins.twin(self.module)
        return result

    def refresh(self) -> None:
        """After an edit: drop dead nodes and unused modules, have it recompiled, propagate shapes, check the invariants.

        The file or module that it was opened from is then another network, so `source`, `own_runtime` and
        `source_check` are reset.

        Raises:
            GraphError: an invariant does not hold.
        """
        self.source, self.own_runtime = None, None
        self.source_check = SourceCheck(reason="it was changed after it was opened")
        self._settle()

    def _settle(self) -> None:
        self.module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
        drop_unused(self.module)
        try:
            self.module.graph.lint()
        except RuntimeError as error:
            raise GraphError(f"graph {self.name} is not valid: {str(error).splitlines()[0]}") from error
        self.module.recompile()
        self.module.eval()
        propagation.propagate(self.module, self.input_shape)
        problems = invariants.violations(self.module)
        if problems:
            raise GraphError(f"graph {self.name} is not valid: {'; '.join(problems)}")


def drop_unused(module: fx.GraphModule) -> None:
    """Delete the layers that no node calls; `delete_all_unused_submodules` compares each name with each."""
    used = {str(node.target).partition(".")[0] for node in module.graph.nodes if node.op in ("call_module", "get_attr")}
    for name in [name for name, _ in module.named_children() if name not in used]:
        delattr(module, name)


def only_consumer(node: fx.Node) -> fx.Node | None:
    """The single node that reads this one, else None."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def producer(node: fx.Node) -> fx.Node:
    """The node that `node`, which has one input, reads."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def needed(end: fx.Node, beyond: Collection[fx.Node]) -> list[fx.Node]:
    """The nodes that compute `end` from the values of `beyond`, `end` included, in execution order."""
    found: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node not in found and node not in beyond:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return [node for node in end.graph.nodes if node in found]
