"""`slimseg diagnose`: what could be saved, where, and what it would take; every finding timed by a what-if."""

from __future__ import annotations

import tempfile
from pathlib import Path

from slimseg.graph.graph import Graph
from slimseg.planning import whatif
from slimseg.planning.whatif import Precision, Price
from slimseg.progress import Progress, Silent
from slimseg.results import Diagnosis, Finding, Refusal
from slimseg.runtimes.litert import benchmark, writer
from slimseg.techniques import TECHNIQUES, LayerTimes, Site

_NEEDS_ORDER = ("nothing", "images", "labels")


def diagnose(
    graph: Graph, precision: Precision = "float32", threads: int = 1, progress: Progress | None = None
) -> Diagnosis:
    """Find every site of every technique and time each, before and after, side by side on LiteRT.

    Args:
        graph: an opened network.
        precision: what the what-ifs are written in, "float32" or "int8"; what pays in one may not in the other.
        threads: CPU threads of the runtime.
        progress: where to show progress; silent by default.

    Returns:
        Findings by what they need (nothing, images, labels), then by saving; sites that gain nothing included, so
        that nobody tries them by hand.
    """
    progress = progress or Silent()
    latency_ms = _latency(graph, threads)
    sites, refusals = find_all(graph, {})
    priced = whatif.price(graph, sites, precision, progress, threads)
    findings = [finding(site, price, latency_ms) for site, price in priced.prices.items()]
    findings.sort(key=lambda each: (_NEEDS_ORDER.index(each.needs), -each.saving_ms))
    return Diagnosis(graph.name, precision, latency_ms, tuple(findings), (*refusals, *priced.refusals))


def find_all(graph: Graph, times: LayerTimes) -> tuple[list[Site], list[Refusal]]:
    """All sites and refusals of all techniques."""
    found = [technique.find(graph, times) for technique in TECHNIQUES]
    return [site for each in found for site in each.sites], [refusal for each in found for refusal in each.refusals]


def finding(site: Site, price: Price, latency_ms: float) -> Finding:
    """A site with its price, in words."""
    reason = f"{site.variant}: {site.reason}" if site.variant else site.reason
    share = price.saving_ms / latency_ms if latency_ms else 0.0
    return Finding(
        site.technique, site.layers, site.needs, price.before_ms, price.after_ms, price.saving_ms, share, reason
    )


def _latency(graph: Graph, threads: int) -> float:
    with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
        path = Path(folder) / "model.tflite"
        writer.write(graph, path)
        (timing,) = benchmark.time_files([path], threads=threads)
    return timing.median_ms
