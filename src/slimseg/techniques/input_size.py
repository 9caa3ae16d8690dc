"""A smaller input size: fewer pixels in every layer (article, section 2).

    Given   a network at H×W
    Result  the same weights at H'×W' < H×W, about the same aspect ratio

The article expects a quarter of the time at half the side; the what-if measures it. Sides stay multiples of the
network's total stride (32 for most encoders; other sizes break skip connections), and at least of 8, because kernels
work on 8 pixels at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site

STEPS = (8, 16, 32)
SMALLEST_SIDE = 64
PERCENTS = (90, 80, 70, 60, 50, 45, 40, 30)  # of each side
ASPECT_TOLERANCE = 0.1  # largest relative change of width / height


@dataclass(frozen=True)
class Size(Settings):
    height: int  # pixels
    width: int

    @property
    def words(self) -> str:
        return f"{self.height}x{self.width}"


class InputSize:
    """Feeds the network a smaller image."""

    name = "input size"
    needs: Needs = "images"
    paper = f"{ARTICLE}, section 2"
    settings = Size

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for size in candidates(graph.input_size, needed_step(graph)):
            try:
                edit.at_input_size(graph, size)
            except Unsupported as refusal:
                refusals.append(Refusal(self.name, graph.input.name, str(refusal)))
                continue
            sites.append(self._site(graph, size))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, size: tuple[int, int]) -> Site:
        height, width = graph.input_size
        share = size[0] * size[1] / (height * width)
        reason = f"{size[0]}x{size[1]} instead of {height}x{width}: {share:.0%} of the pixels in every layer"
        source = graph.input.name
        return Site(self.name, (source,), source, graph.output.name, self.needs, reason, Size(*size), whole=True)

    def apply(self, graph: Graph, site: Site) -> Graph:
        return edit.at_input_size(graph, size_of(site))


def size_of(site: Site) -> tuple[int, int]:
    """Height and width of the input after a site's edit, in pixels."""
    size = site.settings_as(Size)
    return size.height, size.width


def needed_step(graph: Graph) -> int:
    """The smallest of 8, 16, 32 pixels in whose multiples the network's input can shrink."""
    height, width = graph.input_size
    for step in STEPS:
        try:
            edit.at_input_size(graph, (height // step * step - step, width // step * step - step))
        except (Unsupported, GraphError):
            continue
        return step
    return STEPS[-1]


def candidates(size: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """Smaller sizes (height, width), multiples of `step`, of about the same aspect ratio, largest first."""
    found = set()
    for percent in PERCENTS:
        scaled = [max(step, round(length * percent / 100 / step) * step) for length in size]
        if min(scaled) >= SMALLEST_SIDE and tuple(scaled) != size:
            found.add((scaled[0], scaled[1]))
    return sorted(_nearest_aspect(found, size), key=lambda each: -each[0] * each[1])


def _nearest_aspect(sizes: set[tuple[int, int]], original: tuple[int, int]) -> list[tuple[int, int]]:
    """For each height the width nearest to the original aspect ratio, if it is within `ASPECT_TOLERANCE`."""
    aspect = original[1] / original[0]
    best: dict[int, tuple[int, int]] = {}
    for size in sorted(sizes):
        kept = best.get(size[0])
        if kept is None or abs(size[1] / size[0] - aspect) < abs(kept[1] / kept[0] - aspect):
            best[size[0]] = size
    return [size for size in best.values() if abs(size[1] / size[0] / aspect - 1) <= ASPECT_TOLERANCE]
