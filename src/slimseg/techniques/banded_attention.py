"""Attention in bands: every query sees only the keys of its own band of rows or columns.

    Given   y = softmax(s·Q Kᵀ) V,                 Q of H×W pixels, K and V of h×w pixels of the same map
    Result  y_b ≈ softmax(s·Q_b K_bᵀ) V_b,         b = 1..n,  Q_b, K_b, V_b the b-th of n equal bands

Scores and products fall to 1/n. The result is exact where a query attends only to its own band. What lies in other
bands reaches a pixel through the layers before and behind, so bands of rows in one layer go well with bands of columns
in the next. The weights are unchanged. A band of rows is one piece of memory, and so is quicker to cut out than a
window.
Liu et al., "Swin Transformer", 2021, section 3.2; Dong et al., "CSWin Transformer", 2022, section 3.2, for bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.region import region
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

COUNTS = (2, 4)
LEAST_LENGTH = 2  # rows or columns in a band of keys


@dataclass(frozen=True)
class Split(Settings):
    of: Literal["rows", "columns"]
    count: int

    @property
    def dim(self) -> int:
        return 2 if self.of == "rows" else 3

    @property
    def words(self) -> str:
        return f"{self.count} bands of {self.of}"


class BandedAttention:
    """Restricts attention to bands of the map."""

    name = "attention in bands"
    needs: Needs = "images"
    paper = "Liu et al., Swin Transformer, 2021, section 3.2; Dong et al., CSWin Transformer, 2022, section 3.2"
    settings = Split

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if graph.layer_as(node, ops.Attention) is None:
                continue
            if reason := _refusal(graph, node):
                refusals.append(Refusal(self.name, node.name, reason))
                continue
            variants = [each for each in _variants() if _divides(graph, node, each)]
            sites += [self._site(graph, node, each) for each in variants]
            if not variants:
                refusals.append(Refusal(self.name, node.name, "its maps cannot be divided into equal bands"))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, bands: Split) -> Site:
        queries, keys, _ = (dimensions(graph, each) for each in _inputs(node))
        reason = (
            f"every one of {queries} queries is compared with every one of {keys} keys: within bands there are "
            f"{bands.count}x fewer pairs"
        )
        source, _ = region(graph, [node.name])
        return Site(self.name, (node.name,), source, node.name, self.needs, reason, bands)

    def apply(self, graph: Graph, site: Site) -> Graph:
        node, bands = graph.node(site.target), site.settings_as(Split)
        layer = graph.layer_as(node, ops.Attention)
        if layer is None or _refusal(graph, node) or not _divides(graph, node, bands):
            raise Unsupported(f"{node.name} is not attention between maps that {bands.words} divide")
        inputs = _inputs(node)
        lengths = [graph.shape(each)[bands.dim] for each in inputs]
        return edit.replace(graph, [each.name for each in inputs], node.name, _Banded(layer, bands, lengths))


class _Banded(nn.Module):
    """Attention within each band, and the results one behind another."""

    def __init__(self, layer: ops.Attention, bands: Split, lengths: list[int]) -> None:
        super().__init__()
        count, dim = bands.count, bands.dim
        queries, keys, _ = (length // count for length in lengths)
        numbers = range(count)
        self.queries = nn.ModuleList(ops.Slice(dim, each * queries, (each + 1) * queries) for each in numbers)
        self.keys = nn.ModuleList(ops.Slice(dim, each * keys, (each + 1) * keys) for each in numbers)
        self.values = nn.ModuleList(ops.Slice(dim, each * keys, (each + 1) * keys) for each in numbers)
        self.bands = nn.ModuleList(ops.Attention(layer.heads, layer.scale) for _ in numbers)
        self.join = ops.Concat(dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        parts = zip(self.bands, self.queries, self.keys, self.values, strict=True)
        result: Tensor = self.join(*(band(q(queries), k(keys), v(values)) for band, q, k, v in parts))
        return result


def _variants() -> list[Split]:
    return [Split("rows", COUNTS[0]), Split("rows", COUNTS[1]), Split("columns", COUNTS[0])]


def _inputs(node: fx.Node) -> tuple[fx.Node, ...]:
    """Attention's queries, keys and values, of which some may be the same."""
    return tuple(each for each in node.args if isinstance(each, fx.Node))


def _refusal(graph: Graph, node: fx.Node) -> str | None:
    layer = graph.layer_as(node, ops.Attention)
    assert layer is not None
    if any(len(graph.shape(each)) != 4 for each in _inputs(node)):
        return "its tokens are no pixels of a map"
    if layer.bias is not None or layer.mask is not None:
        return "its scores have constants for single pairs of tokens"
    return None


def _divides(graph: Graph, node: fx.Node, bands: Split) -> bool:
    lengths = [graph.shape(each)[bands.dim] for each in _inputs(node)]
    return all(length % bands.count == 0 and length // bands.count >= LEAST_LENGTH for length in lengths)
