"""One spelling for each computation, so that a network is the same Graph whichever format it came from.

Exporters write layers out in steps of their own: a layer norm as means and differences, a GELU with erf, a bias as an
addition, the heads of attention through reshapes in any order. The rewrites here recognise on the Graph itself what
such steps compute, so that every format and every hand-written module profits.

    duplicates      a value that is computed twice is computed once
    activation      GELU, SiLU, Hardswish, Hardsigmoid
    normalisation   layer, instance, group and RMS norm
    crops           after transposed convolutions
    biases          additions after layers of weights, and after the scale of a normalisation
    attention       matrix products and a softmax
    maps            layers of token sequences run on maps (graph/maps.py)
    slices          of channels, before reshapes and transposes
    functions       of single numbers, before reshapes and transposes instead of after them
    product         the scale of attention, and products of transposed values
    linear          linear layers in front of a map run on that map
    channel_order   channels that change their order, as before a pixel shuffle: the convolution makes them in it
    views           reshapes and transposes in a row
"""

from __future__ import annotations

from slimseg.graph.graph import Graph
from slimseg.graph.maps import as_maps
from slimseg.graph.spellings import (
    activation,
    attention,
    biases,
    channel_order,
    crops,
    duplicates,
    functions,
    linear,
    normalisation,
    product,
    slices,
    views,
)


def in_one_spelling(graph: Graph) -> Graph:
    """The same network in the spellings that slimseg uses; `graph` itself is changed."""
    source = graph.source  # the network computes the same as before
    for rewrite in (duplicates.merge, activation.merge, normalisation.merge, crops.merge, biases.merge):
        rewrite(graph)
    graph.refresh()
    for rewrite in (slices.before_views, functions.before_views, product.scale_results, attention.merge):
        rewrite(graph)
    graph.refresh()
    graph = as_maps(graph)
    for rewrite in (
        *(
            duplicates.merge,
            slices.before_views,
            functions.before_views,
            product.scale_results,
            product.choose_transposes,
        ),
        *(channel_order.fold, linear.on_maps, views.simplify, duplicates.merge),
    ):
        rewrite(graph)
    graph.refresh()
    graph.source = source
    return graph


__all__ = ["in_one_spelling"]
