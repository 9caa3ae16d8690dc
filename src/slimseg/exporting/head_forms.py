"""The forms that a network's output can take for an app that wants a class mask (article, sections 2 and 3.4).

    Given   U(z), softmax(U(z)) or argmax(U(z)),   z logits at h×w, U a bilinear resize to H×W
    Result  z, softmax(z), argmax(z)               at h×w; the app resizes them to its image
            U(z), softmax(U(z)), argmax(U(z))      at H×W, as the network's input

An app compares scores after it has resized them, so U(z) and z give it the same mask but for what U rounds
(`techniques/head.py`); softmax keeps the order of classes in a pixel, not in the mean of two; a mask can only be
resized to the nearest pixel. What that changes is measured (`heads.py`), not assumed.
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
    """Every form by its name, the network as it is first; and why a kind of output cannot be had, by that kind.

    A name tells the kind of output and its size: "logits at 96x128".
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
    """What a network gives, and how large."""
    height, width = map_size(graph)
    return f"{graph.description.output_kind} at {height}x{width}"


def _bare(graph: Graph) -> Graph:
    """The logits, or what comes nearest to them."""
    for site in TwoClassSoftmax().find(graph).sites:
        if site.settings == ONE_KEPT:
            graph = TwoClassSoftmax().apply(graph, site)  # exact, and one logit can be had from it
    try:
        return with_output(graph, "logits")
    except Unsupported:
        return graph


def _sizes(graph: Graph) -> list[Graph]:
    """The same at every size that it can be given at, the smallest first; a mask only at its own."""
    if graph.description.output_kind == "mask":
        return [graph]
    full = graph if map_size(graph) == graph.input_size else edit.append(graph, ops.Resize(graph.input_size), "resize")
    return list({map_size(each): each for each in (_reduced(graph), graph, full)}.values())


def _reduced(graph: Graph) -> Graph:
    """Without the resizes at its end, in front of the classifier or behind it."""
    technique = Head()
    while True:
        sites = technique.find(graph).sites
        last = [site for site in sites if site.settings in (RESIZE_LATE, REDUCED) and site.target == graph.output.name]
        if not last:
            return graph
        graph = technique.apply(graph, last[0])
