"""The forms that a network's output can have in an app that needs a class mask.

    Given   U(z), softmax(U(z)) or argmax(U(z)),   z logits at h×w, U a bilinear resize to H×W
    Result  z, softmax(z), argmax(z)               at h×w; the app resizes them to its image
            U(z), softmax(U(z)), argmax(U(z))      at H×W, the size of the network's input

An app resizes scores and then takes the argmax, so U(z) and z give the same mask up to rounding in U
(`techniques/head.py`). Softmax keeps the order of classes within a pixel, but not in a mean of two pixels; a mask can
only be resized to the nearest pixel. How many pixels these change is measured (`heads.py`).
"""

from __future__ import annotations

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.description import OUTPUT_KINDS
from slimseg.graph.graph import Graph
from slimseg.graph.output import map_size
from slimseg.report.head_choice import AS_IS
from slimseg.techniques.head import REDUCED, RESIZE_LATE, Head, with_output
from slimseg.techniques.softmax import ONE_KEPT, TwoClassSoftmax


def forms(graph: Graph) -> tuple[dict[str, Graph], dict[str, str]]:
    """Every form by its name, first the unchanged network; and by kind of output, why the network cannot have it.

    A name states the kind of output and its size: "logits at 96x128".
    """
    own = name(graph)
    found = {f"{AS_IS} ({own})": graph}
    refused: dict[str, str] = {}
    for base in _sizes(_bare(graph)):
        for kind in OUTPUT_KINDS:
            try:
                form = with_output(base, kind)
            except Unsupported as error:
                refused[kind] = str(error)
                continue
            if name(form) != own:
                found[name(form)] = form
    return found, refused


def name(graph: Graph) -> str:
    """Kind and size of a network's output, as in "logits at 96x128"."""
    height, width = map_size(graph)
    return f"{graph.description.output_kind} at {height}x{width}"


def _bare(graph: Graph) -> Graph:
    """The network ending in its logits, or as close to them as possible."""
    for site in TwoClassSoftmax().find(graph).sites:
        if site.settings == ONE_KEPT:
            graph = TwoClassSoftmax().apply(graph, site)  # exact, and allows an output of one logit
    try:
        return with_output(graph, "logits")
    except Unsupported:
        return graph


def _sizes(graph: Graph) -> list[Graph]:
    """The network with every possible size of its output, smallest first; a mask only has its own size."""
    if graph.description.output_kind == "mask":
        return [graph]
    full = graph if map_size(graph) == graph.input_size else edit.append(graph, ops.Resize(graph.input_size), "resize")
    return list({map_size(each): each for each in (_reduced(graph), graph, full)}.values())


def _reduced(graph: Graph) -> Graph:
    """The network without the resizes at its end, before or after the classifier."""
    technique = Head()
    while True:
        sites = technique.find(graph).sites
        last = [site for site in sites if site.settings in (RESIZE_LATE, REDUCED) and site.target == graph.output.name]
        if not last:
            return graph
        graph = technique.apply(graph, last[0])
