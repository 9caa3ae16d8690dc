"""The head: the last layers, which give the network's output (article, sections 3.4 (5) and 2).

A mask is the argmax of the logits, so softmax does not change it. A bilinear resize is linear, with weights per pixel
that add up to one, so it commutes exactly with a 1x1 convolution:

    Given   conv₁ₓ₁(U(x))                          at H×W, all channels resized
    Result  U(conv₁ₓ₁(x))                          at h×w, only the classes resized            (exact)
    Given   U(logits)                              if the app resizes to the image's size anyway
    Result  logits at h×w                          the same values, resized once by the app     (reduced size)

Which of them apply depends on what the user asked for: logits, probabilities or mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.output import giving_map
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site, dimensions


@dataclass(frozen=True)
class End(Settings):
    form: Literal["resize late", "reduced", "no softmax", "no argmax"]

    @property
    def words(self) -> str:
        return {
            "resize late": "resize behind the classifier",
            "reduced": "reduced size",
            "no softmax": "logits instead of probabilities",
            "no argmax": "logits instead of a mask",
        }[self.form]


RESIZE_LATE, REDUCED, NO_SOFTMAX, NO_ARGMAX = End("resize late"), End("reduced"), End("no softmax"), End("no argmax")
_LEFT_OUT: dict[End, type[nn.Module]] = {NO_SOFTMAX: nn.Softmax, NO_ARGMAX: ops.ArgMax, REDUCED: ops.Resize}


class Head:
    """Removes work from the end of the network, as far as the wanted output allows."""

    name = "head"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 3.4 (5)"
    settings = End

    def find(self, graph: Graph) -> Found:
        sites = []
        refusals: list[Refusal] = []
        output = graph.output
        if graph.layer_as(output, ops.ArgMax):
            sites.append(
                self._whole(
                    output,
                    NO_ARGMAX,
                    f"{output.name} takes the argmax of {dimensions(graph, output)}, which the app can do",
                )
            )
        elif graph.layer_as(output, nn.Softmax):
            sites.append(
                self._whole(output, NO_SOFTMAX, f"softmax over {dimensions(graph, output)} does not change the mask")
            )
        elif graph.layer_as(output, ops.Resize):
            sites.append(
                self._whole(
                    output,
                    REDUCED,
                    f"the last resize to {dimensions(graph, output)} is unnecessary, as the app resizes to the image",
                )
            )
        sites.extend(self._late_resizes(graph, refusals))
        return Found(tuple(sites), tuple(refusals))

    def _whole(self, node: fx.Node, end: End, reason: str) -> Site:
        return Site(self.name, (node.name,), producer(node).name, node.name, self.needs, reason, end, whole=True)

    def _late_resizes(self, graph: Graph, refusals: list[Refusal]) -> list[Site]:
        sites = []
        for node in graph.layers():
            resize = graph.layer_as(node, ops.Resize)
            reader = only_consumer(node)
            convolution = graph.layer_as(reader, nn.Conv2d)
            if resize is None or reader is None or convolution is None:
                continue
            if not _is_pointwise(convolution):
                continue
            shared = edit.shared_with(graph, node) or edit.shared_with(graph, reader)
            if shared:
                refusals.append(Refusal(self.name, node.name, f"its layers are shared with {shared}"))
                continue
            if convolution.out_channels > graph.shape(node)[1] or not _enlarges(graph, node):
                refusals.append(
                    Refusal(
                        self.name, node.name, f"after {reader.name} there would be more values to resize than before"
                    )
                )
                continue
            reason = (
                f"{node.name} resizes {graph.shape(node)[1]} channels to {dimensions(graph, node)} before a 1x1 "
                f"convolution reduces them to {convolution.out_channels}: resize these instead"
            )
            sites.append(
                Site(
                    self.name,
                    (node.name, reader.name),
                    producer(node).name,
                    reader.name,
                    self.needs,
                    reason,
                    RESIZE_LATE,
                )
            )
        return sites

    def apply(self, graph: Graph, site: Site) -> Graph:
        end, output = site.settings_as(End), graph.output
        if end == RESIZE_LATE:
            return _resize_late(graph, *site.layers)
        if output.name != site.target or not graph.layer_as(output, _LEFT_OUT[end]):
            # if an earlier edit was not applied, this name may belong to the classifier itself
            raise Unsupported(f"{site.target} is not the last layer of {graph.name}, which {end.words} would remove")
        return _without_end(graph, graph.description.output_kind if end == REDUCED else "logits")


def with_output(graph: Graph, kind: OutputKind) -> Graph:
    """The graph with the output that the user asked for: a softmax or argmax is appended or removed.

    Raises:
        Unsupported: the wanted kind of output cannot be computed from the network's.
    """
    have = graph.description.output_kind
    if kind == have:
        return graph
    graph = giving_map(graph)  # a flattened output has no channel dimension
    if have == "mask" and graph.layer_as(graph.output, ops.ArgMax):
        graph = _without_end(graph, "probabilities" if graph.layer_as(producer(graph.output), nn.Softmax) else "logits")
        return with_output(graph, kind)
    if have == "probabilities" and kind == "logits" and graph.layer_as(graph.output, (nn.Softmax, nn.Sigmoid)):
        return _without_end(graph, "logits")
    if have == "mask" or kind == "logits":
        raise Unsupported(f"{graph.name} ends in {graph.output.name} ({have}), which cannot be converted to {kind}")
    one_channel = graph.shape(graph.output)[1] == 1
    if kind == "mask" and one_channel:
        raise Unsupported(
            f"{graph.name} has one output channel, which the app must threshold: ask for logits or probabilities"
        )
    layer: nn.Module = ops.ArgMax() if kind == "mask" else nn.Sigmoid() if one_channel else nn.Softmax(1)
    result = edit.append(graph, layer, {"mask": "argmax", "probabilities": "softmax"}[kind])
    result.description = with_fields(result.description, output_kind=kind)
    return result


def _without_end(graph: Graph, kind: OutputKind) -> Graph:
    """A copy without the last layer; the layer before takes over its name."""
    name = graph.output.name
    result = edit.bypass(graph, name)
    result = edit.renamed(result, result.output.name, name)
    result.description = with_fields(result.description, output_kind=kind)
    return result


def _resize_late(graph: Graph, resize: str, convolution: str) -> Graph:
    # The last of the two layers gets the convolution's name, as every edit keeps the name of its target.
    result = edit.renamed(edit.swap(graph, resize, convolution), convolution, f"{convolution}_reduced")
    return edit.renamed(result, resize, convolution)


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and convolution.stride == (1, 1)
        and convolution.padding in ((0, 0), 0)
        and convolution.groups == 1
    )


def _enlarges(graph: Graph, resize: fx.Node) -> bool:
    before, after = graph.shape(producer(resize)), graph.shape(resize)
    return before[2] * before[3] < after[2] * after[3]
