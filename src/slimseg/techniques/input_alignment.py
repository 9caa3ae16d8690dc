"""Input sizes whose maps divide evenly: 512 instead of 513, 224 instead of 225 (article, section 2).

    Given   a network at H×W, at least one of which is no multiple of 32
    Result  the same weights at H'×W', the nearest multiples of 32, or of 8

The article: "the input size should be a multiple of 8 [...] load multiples of 8, then multiples of 4, 2 and 1". An
odd side stays odd through every stride of 2 (513, 257, 129, 65, 33), so each layer's rows end in a remainder.
"""

from __future__ import annotations

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.results import Needs, Refusal
from slimseg.techniques.input_size import Size, size_of
from slimseg.techniques.technique import ARTICLE, Found, Site

STEPS = (32, 8)  # pixels: the total stride of most encoders; the number of values that kernels work on at a time
NEAR = 0.05  # largest change of a side, as a share of it


class InputAlignment:
    """Changes an input size to the nearest one that divides evenly."""

    name = "input size in multiples of 8"
    needs: Needs = "images"
    paper = f"{ARTICLE}, section 2"
    settings = Size

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for size in neighbours(graph.input_size):
            try:
                edit.at_input_size(graph, size)
            except (Unsupported, GraphError) as refusal:
                refusals.append(Refusal(self.name, graph.input.name, str(refusal)))
            else:
                sites.append(self._site(graph, size))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, size: tuple[int, int]) -> Site:
        name, before, after = graph.input.name, "x".join(map(str, graph.input_size)), "x".join(map(str, size))
        step = next(step for step in reversed(STEPS) if any(side % step for side in graph.input_size))
        reason = (
            f"{before} is not a multiple of {step}, and its maps have odd heights and widths "
            f"({_maps(graph.input_size)}): {after} gives {_maps(size)}"
        )
        return Site(self.name, (name,), name, graph.output.name, self.needs, reason, Size(*size), whole=True)

    def apply(self, graph: Graph, site: Site) -> Graph:
        size = size_of(site)
        if size not in neighbours(graph.input_size):
            raise Unsupported(f"an input of {size[0]}x{size[1]} is not one of the sizes next to {graph.name}'s")
        return edit.at_input_size(graph, size)


def neighbours(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The nearest sizes that are multiples of 32 and of 8, within `NEAR`; empty if `size` is a multiple of 32."""
    found = []
    for step in STEPS:
        near = tuple(side if side % step == 0 else max(step, round(side / step) * step) for side in size)
        if near != size and all(abs(new - side) <= NEAR * side for new, side in zip(near, size, strict=True)):
            found.append((near[0], near[1]))
    return list(dict.fromkeys(found))


def _maps(size: tuple[int, int]) -> str:
    """The sizes of the maps that strides of 2 give, down to a 32nd."""
    maps = [size]
    while len(maps) < 6 and min(maps[-1]) > 8:
        maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
    return ", ".join(f"{height}x{width}" for height, width in maps[1:])
