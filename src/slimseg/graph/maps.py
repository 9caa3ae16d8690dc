"""Sequences of tokens as maps: the layers of a transformer in the form that convolutional networks have.

Transformers flatten a map into a sequence of tokens, run linear layers and layer norms on it, and fold it into a map
again. A token is a pixel, so that the same layers can run on the map:

    (N, H·W, C)  linear layer              ->  (N, C, H, W)  1x1 convolution
                 norm over the last                          norm over the channels
                 activation, sum, product                    the same

Attention reads maps, too. What remains are other products of two activations, which read sequences. With this every
technique for convolutions applies to transformers, and a network is the same Graph whichever of its forms the source
has. (Apple, "Deploying Transformers on the Apple Neural Engine", 2022, recommends the same form for speed.)

Layers are rewritten where their inputs hold maps in another arrangement (`map_views`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.graph.map_views import (
    CHANNELS,
    PIXELS,
    Groups,
    View,
    long,
    on_map,
    own_groups,
    permutation,
    reduced,
    regrouped,
    together,
    with_short,
)
from slimseg.graph.names import legal, unused
from slimseg.graph.propagation import shape_of
from slimseg.graph.rewriting import insert_before
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.rules import constants

_BINARY = (ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Maximum, ops.Minimum)
_UNARY = (*ops.PLAIN_ACTIVATIONS, ops.Unary)


def as_maps(graph: Graph) -> Graph:
    """The same network with its layers on maps wherever that is possible; `graph` itself if nothing is to be done."""
    if not any(isinstance(graph.layer(node), ops.Reshape | ops.Transpose) for node in graph.layers()):
        return graph
    result = graph.copy()
    if not _Rewriter(result).run():
        return graph
    source = graph.source  # the network computes the same as before
    result.refresh()
    result.source = source
    return result


class _Rewriter:
    """Goes through the layers once, in order, and makes new layers beside the old ones."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.views: dict[fx.Node, View] = {}  # of old nodes that are no longer needed
        self.made: dict[fx.Node, fx.Node] = {}  # old node by the new node that computes its values
        self.modules: dict[tuple[str, str], str] = {}  # new module by the old one and what it became
        self.arranged: dict[tuple[fx.Node, Groups, Shape], fx.Node] = {}
        self.pulled: dict[fx.Node, View] = {}  # of old nodes that are needed, too
        self.names: dict[fx.Node, str] = {}  # of new nodes, after the old ones are gone

    def run(self) -> bool:
        """Rewrite the graph; returns whether a layer runs on maps now, or reshapes and transposes cancel."""
        for node in list(self.graph.layers()):
            layer = self.graph.layer(node)
            rule = _RULES.get(type(layer)) if layer is not None else None
            if rule is not None and any(self._view(source) for source in node.all_input_nodes):
                rule(self, node, layer)
        if not self.made and not any(map(self._is_map, self.views)):
            return False
        for node in list(self.views):
            readers = [reader for reader in node.users if reader not in self.views]
            if readers:
                value = self._value(node)
                for reader in readers:
                    reader.replace_input_with(node, value)
        self._remove()
        return True

    # --- views

    def _view(self, node: fx.Node) -> View | None:
        """How a value holds a map: a map of the network holds itself."""
        if (known := self._derived(node)) is not None:
            return known
        shape = self.graph.shape(node)
        return View(node, own_groups(shape)) if len(shape) == 4 and node.op != "get_attr" else None

    def _derived(self, node: fx.Node) -> View | None:
        """The view of a value that is rewritten, or that was arranged as a map for another reader."""
        return self.views.get(node, self.pulled.get(node))

    def _value(self, node: fx.Node) -> fx.Node:
        """The value of a rewritten node in its own arrangement, for layers that need it so."""
        view, shape = self.views[node], self.graph.shape(node)
        if self._is_map(node):
            return view.map
        key = view.map, view.groups, shape
        if key not in self.arranged:
            is_layer = self.made.get(view.map) is node
            name = f"{node.name}_arranged" if is_layer else node.name
            self.arranged[key] = self._arranged(view, shape, name, node)
            self.names[self.arranged[key]] = name
        return self.arranged[key]

    def _is_map(self, node: fx.Node) -> bool:
        """Whether the value of a rewritten node is its map as it is."""
        view = self.views[node]
        return len(self.graph.shape(node)) == 4 and view.groups == own_groups(self.graph.shape(view.map))

    def _arranged(self, view: View, shape: Shape, name: str, before: fx.Node) -> fx.Node:
        """Layers that arrange a map as a view."""
        order = tuple(dim for group in view.groups for dim in group)
        lengths = self.graph.shape(view.map)
        if len(shape) != 4 and order == long((*PIXELS, CHANNELS), lengths):
            return self._new(ops.Reshape(shape, channels_last=True), (view.map,), name, before)
        turned = view.map
        dims = permutation(view.groups)
        if dims is not None and len(shape) == 4:
            return self._new(ops.Transpose(dims), (view.map,), name, before)
        if order != long((CHANNELS, *PIXELS), lengths):
            full = (0, *order, *(dim for dim in range(1, 4) if dim not in order))
            turned = self._new(ops.Transpose(full), (view.map,), f"{name}_turned", before)
        return self._new(ops.Reshape(shape, channels_last=False), (turned,), name, before)

    # --- new layers

    def _new(self, layer: nn.Module, inputs: Sequence[fx.Node], name: str, before: fx.Node) -> fx.Node:
        return insert_before(self.graph, before, layer, inputs, legal(name))

    def _call(self, target: str, inputs: Sequence[fx.Node], before: fx.Node) -> fx.Node:
        with self.graph.module.graph.inserting_before(before):
            made = self.graph.module.graph.call_module(target, tuple(inputs))
        made.meta["shape"] = shape_of(
            self.graph.module.get_submodule(target), [self.graph.shape(source) for source in inputs]
        )
        return made

    def _instead(
        self,
        node: fx.Node,
        inputs: Sequence[fx.Node],
        groups: Groups,
        layer: Callable[[], nn.Module] | None,
        kind: str = "",
        before: fx.Node | None = None,
    ) -> None:
        """Compute `node` on maps from now on.

        Args:
            layer: makes the new layer; None: the old one serves as it is.
            kind: what the new layer is, for old layers that several nodes share.
        """
        target, key = str(node.target), (str(node.target), kind)
        if layer is not None:
            if key not in self.modules:
                self.modules[key] = unused(legal(f"{target}_{kind}"), self.graph.module._modules)
                self.graph.module.add_module(self.modules[key], layer().eval())
            target = self.modules[key]
        made = self._call(target, inputs, before or node)
        self.made[made] = node
        self.views[node] = View(made, groups)

    def _remove(self) -> None:
        """Drop the old nodes, and give their names to the new ones."""
        self.names.update({made: node.name for made, node in self.made.items()})
        for node in reversed(list(self.graph.module.graph.nodes)):
            if node in self.views and not node.users:
                self.graph.module.graph.erase_node(node)
        self.graph.module.delete_all_unused_submodules()
        left = {node.name for node in self.graph.module.graph.nodes}
        for made, name in self.names.items():
            if name not in left and made.name in left:
                made.name = name
        for made in self.names:
            if not hasattr(self.graph.module, made.name):
                self._move(str(made.target), made.name)

    def _move(self, new: str, old: str) -> None:
        layer = self.graph.module.get_submodule(new)
        self.graph.module.delete_submodule(new)
        self.graph.module.add_module(old, layer)
        for node in self.graph.layers():
            if node.target == new:
                node.target = old

    # --- rules: for each kind of layer, how it runs on maps

    def reshape(self, node: fx.Node, layer: ops.Reshape) -> None:
        source = node.all_input_nodes[0]
        view = self._view(source)
        assert view is not None
        before, after = self.graph.shape(source), self.graph.shape(node)
        lengths = self.graph.shape(view.map)
        groups = view.groups
        if layer.channels_last and len(before) == 4:
            groups = tuple(groups[dim] for dim in (0, 2, 3, 1))
        wanted = after
        if layer.channels_last and len(after) == 4:
            wanted = tuple(after[dim] for dim in (0, 2, 3, 1))
        split = regrouped([dim for group in groups for dim in group], wanted, lengths)
        if split is None:
            return
        if layer.channels_last and len(after) == 4:
            split = tuple(split[dim] for dim in (0, 3, 1, 2))
        self.views[node] = View(view.map, split)

    def transpose(self, node: fx.Node, layer: ops.Transpose) -> None:
        view = self._view(node.all_input_nodes[0])
        assert view is not None
        self.views[node] = View(view.map, tuple(view.groups[dim] for dim in layer.dims))

    def unary(self, node: fx.Node, layer: nn.Module) -> None:
        if (view := self._derived(node.all_input_nodes[0])) is not None:
            self._instead(node, (view.map,), view.groups, None)

    def softmax(self, node: fx.Node, layer: nn.Softmax) -> None:
        view = self._derived(node.all_input_nodes[0])
        if view is not None and layer.dim is not None and view.channel_dim == layer.dim % len(view.groups):
            self._instead(node, (view.map,), view.groups, lambda: nn.Softmax(CHANNELS), "over_channels")

    def linear(self, node: fx.Node, layer: nn.Linear) -> None:
        if (view := self._derived(node.all_input_nodes[0])) is not None:
            self._linear(node, layer, view, node)

    def _linear(self, node: fx.Node, layer: nn.Linear, view: View, before: fx.Node) -> None:
        if view.groups[-1] == (CHANNELS,) and layer.out_features > 1:
            self._instead(node, (view.map,), view.groups, lambda: pointwise(layer), "convolution", before)

    def normalise(self, node: fx.Node, layer: ops.Normalise) -> None:
        view = self._derived(node.all_input_nodes[0])
        if view is None:
            return
        dims = view.dims(layer.dims)
        if layer.groups > 1 and (view.groups[1] != (CHANNELS,) or len(layer.dims) != len(view.groups) - 1):
            return
        dims = with_short(dims, self.graph.shape(view.map))
        if dims:
            self._instead(
                node,
                (view.map,),
                view.groups,
                lambda: ops.Normalise(dims, layer.epsilon, layer.groups, layer.centred),
                f"over_{'_'.join(map(str, dims))}",
            )

    def attention(self, node: fx.Node, layer: ops.Attention) -> None:
        """Each of its inputs as a map if it is a sequence of a map's pixels; the result is as the queries are."""
        views = [self._derived(source) for source in node.all_input_nodes]
        as_they_are = [view is not None and self._is_sequence(view) for view in views]
        inputs = [
            view.map if view is not None and is_map else source
            for view, is_map, source in zip(views, as_they_are, node.all_input_nodes, strict=True)
        ]
        if len(inputs) != len(node.args) or not any(as_they_are):
            return
        if views[0] is not None and as_they_are[0] and self.graph.shape(node)[2] > 1:
            self._instead(node, inputs, views[0].groups, None)
        elif not as_they_are[0]:
            node.args = tuple(inputs)

    def _is_sequence(self, view: View) -> bool:
        """Whether a view is (images, pixels, channels)."""
        lengths = self.graph.shape(view.map)
        return view.groups == ((), long(PIXELS, lengths), (CHANNELS,))

    def affine(self, node: fx.Node, layer: ops.Affine) -> None:
        if (view := self._derived(node.all_input_nodes[0])) is not None:
            self._affine(node, layer, view, node)

    def _affine(self, node: fx.Node, layer: ops.Affine, view: View, before: fx.Node) -> None:
        if self.graph.shape(node) != self.graph.shape(node.all_input_nodes[0]):
            return  # the constants broadcast the value to a larger one
        lengths = self.graph.shape(view.map)

        def on_maps() -> nn.Module:
            values = {name: on_map(value, view.groups, lengths) for name, value in constants(layer).items()}
            return ops.Affine(values.get("scale"), values.get("shift"))

        kind = "on_maps_" + "_".join("".join(map(str, group)) for group in view.groups)
        self._instead(node, (view.map,), view.groups, on_maps, kind, before)

    def binary(self, node: fx.Node, layer: nn.Module) -> None:
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        derived = [self._view(source) for source in sources]
        if len(sources) != 2 or len({len(self.graph.shape(each)) for each in sources}) != 1:
            return
        if not any(self._derived(source) for source in sources):
            return
        if derived[0] is None or derived[1] is None:
            place = 0 if derived[0] is not None else 1
            view, other = derived[place], sources[1 - place]
            if view is None or self.graph.shape(other) != self.graph.shape(sources[place]):
                return
            derived[1 - place] = self._pull(other, view.groups, self.graph.shape(view.map), node)
        first, second = derived
        groups = together(first, second, self.graph) if first is not None and second is not None else None
        if first is not None and second is not None and groups is not None:
            self._instead(node, (first.map, second.map), groups, None)

    def concat(self, node: fx.Node, layer: ops.Concat) -> None:
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        views = [self._view(source) for source in sources]
        known = [view for view in views if view is not None]
        if not any(self._derived(source) for source in sources):
            return
        if len(known) != len(views) or {view.groups for view in known} != {known[0].groups}:
            return
        pixels = {self.graph.shape(view.map)[2:] for view in known}
        if known[0].channel_dim == layer.dim and len(pixels) == 1:
            maps = [view.map for view in known]
            self._instead(node, maps, known[0].groups, lambda: ops.Concat(CHANNELS), "of_channels")

    def slice(self, node: fx.Node, layer: ops.Slice) -> None:
        view = self._derived(node.all_input_nodes[0])
        if view is None or len(view.groups[layer.dim]) != 1 or self.graph.shape(node)[layer.dim] == 1:
            return
        (dim,) = view.groups[layer.dim]
        part = layer.start, layer.stop, layer.step
        self._instead(node, (view.map,), view.groups, lambda: ops.Slice(dim, *part), f"of_{dim}")

    def pad(self, node: fx.Node, layer: ops.Pad) -> None:
        view = self._derived(node.all_input_nodes[0])
        dims = permutation(view.groups) if view is not None else None
        if view is None or dims is None or dims[0] != 0:
            return
        left, right, top, bottom = layer.padding
        amounts = dict(zip(dims[1:], (layer.channels, (top, bottom), (left, right)), strict=True))
        if any(any(amounts[dim]) for dim in amounts if (dim,) not in view.groups):
            return  # a dimension of length 1 becomes longer
        padding, kind = (*amounts[3], *amounts[2]), f"of_{''.join(map(str, dims))}"
        self._instead(node, (view.map,), view.groups, lambda: ops.Pad(padding, layer.value, amounts[CHANNELS]), kind)

    def reduce(self, node: fx.Node, layer: ops.Reduce) -> None:
        """Also of a map itself, where the result loses dimensions: the linear layers behind it are convolutions."""
        source = node.all_input_nodes[0]
        of_pixels = layer.dims == PIXELS and not layer.keepdim
        view = self._view(source) if of_pixels else self._derived(source)
        if view is None:
            return
        dims = with_short(view.dims(layer.dims), self.graph.shape(view.map))
        if not dims:
            return
        if layer.kind == "mean" and dims == PIXELS:
            groups = reduced(view.groups, layer)
            self._instead(node, (view.map,), groups, lambda: nn.AdaptiveAvgPool2d((1, 1)), "over_pixels")
            return
        groups = reduced(view.groups, layer)
        kind = f"over_{'_'.join(map(str, dims))}"
        self._instead(node, (view.map,), groups, lambda: ops.Reduce(layer.kind, dims, keepdim=True), kind)

    def _pull(self, node: fx.Node, groups: Groups, lengths: Shape, before: fx.Node) -> View | None:
        """A sequence as a map of the arrangement `groups`, with the linear layers that made it; None if impossible.

        Args:
            lengths: shape of the map beside it; the channels may differ.
            before: the node that needs the map.
        """
        for known in (self.views.get(node), self.pulled.get(node)):
            if known is not None and known.groups == groups and self.graph.shape(known.map)[2:] == lengths[2:]:
                return known
        layer = self.graph.layer(node)
        if isinstance(layer, nn.Linear | ops.Affine) and len(node.users) == 1 and node not in self.views:
            view = self._pull(node.all_input_nodes[0], groups, lengths, before)
            if view is not None and isinstance(layer, nn.Linear):
                self._linear(node, layer, view, before)
            elif view is not None and isinstance(layer, ops.Affine):
                self._affine(node, layer, view, before)
            if node in self.views:
                return self.views[node]
        return self._as_map(node, groups, lengths, before)

    def _as_map(self, node: fx.Node, groups: Groups, lengths: Shape, before: fx.Node) -> View | None:
        shape, order = self.graph.shape(node), tuple(dim for group in groups for dim in group)
        if (CHANNELS,) not in groups or shape[groups.index((CHANNELS,))] == 1:
            return None
        wanted = (lengths[0], shape[groups.index((CHANNELS,))], *lengths[2:])
        dims = permutation(groups)
        if len(shape) == 4 and dims is not None:
            layer: nn.Module = ops.Transpose(tuple(dims.index(dim) for dim in range(4)))
        elif len(shape) != 4 and order == long((*PIXELS, CHANNELS), wanted):
            layer = ops.Reshape(wanted, channels_last=True)
        elif len(shape) != 4 and order == long((CHANNELS, *PIXELS), wanted):
            layer = ops.Reshape(wanted, channels_last=False)
        else:
            return None
        name = f"{node.name}_map"
        self.pulled[node] = View(self._new(layer, (node,), name, before), groups)
        self.names[self.pulled[node].map] = name
        return self.pulled[node]


def pointwise(layer: nn.Linear) -> nn.Conv2d:
    """A linear layer as a 1x1 convolution."""
    made = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
    made.weight = nn.Parameter(layer.weight.detach()[:, :, None, None], layer.weight.requires_grad)
    if layer.bias is not None:
        made.bias = layer.bias
    return made


_Rule = Callable[[_Rewriter, fx.Node, Any], None]
_RULES: dict[type[nn.Module], _Rule] = {
    **dict.fromkeys(_UNARY, _Rewriter.unary),
    **dict.fromkeys(_BINARY, _Rewriter.binary),
    ops.Reshape: _Rewriter.reshape,
    ops.Transpose: _Rewriter.transpose,
    nn.Softmax: _Rewriter.softmax,
    nn.Linear: _Rewriter.linear,
    ops.Normalise: _Rewriter.normalise,
    ops.Attention: _Rewriter.attention,
    ops.Affine: _Rewriter.affine,
    ops.Concat: _Rewriter.concat,
    ops.Slice: _Rewriter.slice,
    ops.Pad: _Rewriter.pad,
    ops.Reduce: _Rewriter.reduce,
}
