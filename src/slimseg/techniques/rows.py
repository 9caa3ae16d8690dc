"""Constants per channel, repeated along a row: the kernel then works row by row, not by pixel (article, section 2).

    Given   y[c, h, w] = f(x[c, h, w], a[c])             PReLU, scale or shift: C constants
    Result  y[c, h, w] = f(x[c, h, w], A[c, w]),  A[c, w] = a[c]             W·C constants, the same values

In memory a row of pixels is W·C contiguous values. A kernel that broadcasts C constants starts anew at every pixel, and
with 4 or 8 channels fills only a part of its registers; with W·C constants it runs through the whole row. This applies
the article's "multiple of 8" to maps that have few channels and many pixels.
"""

from __future__ import annotations

from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, fold, ops
from slimseg.graph.graph import Graph, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site

FEW_CHANNELS = 32  # more channels fill a kernel's registers anyway


class RowConstants:
    """Rewrites PReLU, scales and shifts of few channels with a constant for every value of a row."""

    name = "constants per row"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 2"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if not _has_channel_constants(graph, node) or fold.is_folded(graph, node):
                continue
            _, channels, height, width = graph.shape(node)
            other = edit.shared_with(graph, node)
            if other:
                refusals.append(Refusal(self.name, node.name, f"its constants are shared with {other}"))
            elif channels > FEW_CHANNELS or width == 1:
                refusals.append(Refusal(self.name, node.name, f"{channels} channels fill the kernel's registers"))
            else:
                reason = (
                    f"{channels} constants for {channels}x{height}x{width} values restart at every pixel: "
                    f"{width * channels} of them, one row, let the kernel run without restarts"
                )
                sites.append(Site(self.name, (node.name,), producer(node).name, node.name, self.needs, reason))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.target)
        if not _has_channel_constants(graph, node):
            raise Unsupported(f"{site.target} has no constants per channel")
        layer, (_, channels, _, width) = graph.layer(node), graph.shape(node)

        def along_row(value: Tensor | None) -> Tensor | None:
            if value is None or value.numel() == 1:
                return value
            row = value.detach().reshape(-1, 1, 1).expand(channels, 1, width).contiguous()
            return nn.Parameter(row) if isinstance(value, nn.Parameter) else row

        if isinstance(layer, nn.PReLU):
            slopes = along_row(layer.weight.expand(channels))
            assert slopes is not None
            return edit.replace(graph, [site.source], site.target, nn.Sequential(ops.SpatialPReLU(slopes)))
        assert isinstance(layer, ops.Affine)
        spelled = ops.Affine(along_row(layer.scale), along_row(layer.shift))
        return edit.replace(graph, [site.source], site.target, nn.Sequential(spelled))


def _has_channel_constants(graph: Graph, node: fx.Node) -> bool:
    layer, shape = graph.layer(node), graph.shape(node)
    if len(shape) != 4 or not isinstance(layer, nn.PReLU | ops.Affine) or graph.shape(producer(node)) != shape:
        return False
    if isinstance(layer, nn.PReLU):
        return True
    constants = [value for value in (layer.scale, layer.shift) if value is not None]
    return any(tuple(value.shape) == (shape[1], 1, 1) and value.numel() > 1 for value in constants) and all(
        value.numel() == 1 or tuple(value.shape) == (shape[1], 1, 1) for value in constants
    )
