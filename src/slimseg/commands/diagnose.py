"""`slimseg diagnose`: finds edits that could make a network faster, and times each by a what-if."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.errors import UnknownOperator
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.pace import at_latency
from slimseg.planning.pricing import alike, observations, whatif
from slimseg.planning.pricing.guidelines import guidelines
from slimseg.planning.pricing.layer_times import layer_times, part_ms
from slimseg.planning.pricing.own import own_file_for
from slimseg.planning.pricing.sides import odd_sides
from slimseg.planning.pricing.whatif import Price
from slimseg.progress import Progress, Silent
from slimseg.results import Diagnosis, Disturbance, Finding, Profile, Refusal
from slimseg.runtimes import benchmark, calm, registry
from slimseg.runtimes.calm import Seen
from slimseg.techniques import DIAGNOSED, Site, named

WORTH_SHARE = 0.002  # parts of the network that take a smaller share of its latency are not timed
RUNS = 15
TIME_LIMIT_S = 60.0
PRICING_SHARE = 0.8  # share of the time limit after which no further site is priced
_NEEDS_ORDER = ("nothing", "images", "labels")


def diagnose(
    model: Graph | str | Path,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find every site of every technique, and time each before and after its edit, interleaved on the runtime.

    A `.tflite` is timed and profiled as it is. If it has operators outside slimseg's vocabulary, the findings come from
    its profile alone.

    Args:
        model: an opened network, or any path that `load` opens.
        precision: precision of the what-ifs, one of the runtime's (mostly "float32" or "int8"): an edit may save time
            in one precision and not in another. Default: the file's precision; for a source that is not a file of this
            runtime, the runtime's float precision.
        threads: CPU threads of the runtime.
        time_limit_s: about how many seconds the diagnosis may take. The parts that take the most time are priced
            first; sites that are not priced in time are listed among those left alone.
        progress: where to show progress; silent by default.
        runtime: a name in `runtimes.registry`; by default `deployment.DEFAULT_RUNTIME`.

    Returns:
        Findings by what they need (nothing, images, labels), then by saving. Sites without a saving are included, so
        that users need not try them by hand.

    Raises:
        ModelError: the model cannot be opened.
        UserError: there is no such runtime or precision, or the runtime is not installed.
        RuntimeFailure: the runtime refused the network or crashed (in its child process).
    """
    progress, started = progress or Silent(), time.monotonic()
    asked = registry.deployment(runtime, precision, threads)
    its = registry.named(asked.runtime)
    try:
        graph = model if isinstance(model, Graph) else load(model)
    except UnknownOperator as error:
        path = Path(str(model))
        if not registry.runs_unchanged(path, its.name):
            raise  # only a file of the runtime can be timed without a Graph
        return _of_file(path, asked, str(error))
    own = own_file_for(graph, its.name)
    native = its.float_precision if own is None else its.precision(own)
    deployment = asked if precision else replace(asked, precision=native)
    with scratch.folder() as folder:
        if own is not None and deployment.precision == native:
            path = own
        else:
            path = whatif.written(graph, deployment, folder / "model", ends="float32")
        profile = its.profile(path, threads, RUNS)
        times = layer_times(graph, profile)
        sites, refusals = find_all(graph)
        worth, small = _worth_pricing(graph, sites, times, profile.latency_ms, deployment)
        until = started + PRICING_SHARE * time_limit_s
        priced = alike.price_alike(graph, worth, deployment, progress, until)
        profile, disturbed = _timed_again(path, profile, threads, priced.seen)
    times = layer_times(graph, profile)
    findings = [
        finding(graph, site, price, times, profile.latency_ms, deployment) for site, price in priced.prices.items()
    ]
    findings += odd_sides(graph, times, profile.latency_ms, deployment)
    observed = (*observations.observe(profile), *guidelines(graph, times, profile.latency_ms))
    ordered = in_order([*findings, *observed])
    left_alone = (*refusals, *small, *priced.refusals)
    check = str(graph.source_check)
    return Diagnosis(graph.name, deployment, profile.latency_ms, ordered, left_alone, graph.notes, check, disturbed)


def _of_file(path: Path, asked: Deployment, note: str) -> Diagnosis:
    """The diagnosis of a file that cannot become a Graph, from its profile alone."""
    its, threads = registry.of(path), asked.threads
    profile, disturbed = _timed_again(path, its.profile(path, threads, RUNS), threads)
    findings = in_order(observations.observe(profile))
    timed = replace(asked, precision=its.precision(path))
    return Diagnosis(path.stem, timed, profile.latency_ms, findings, (), (note,), disturbed=disturbed)


def _timed_again(
    path: Path, profile: Profile, threads: int, seen: Seen = calm.NOTHING
) -> tuple[Profile, Disturbance | None]:
    """The profile, scaled to the lower of its own and a newly measured latency; and the disturbance of all timings.

    Args:
        seen: disturbances while the what-ifs were timed, between the profile and now.
    """
    (timing,) = benchmark.time_files([path], threads)
    drift = max(profile.latency_ms, timing.calm_ms) / max(1e-9, min(profile.latency_ms, timing.calm_ms))
    disturbed = calm.together(profile.disturbed, (seen + timing.seen).disturbance(), drift=drift)
    return at_latency(profile, min(profile.latency_ms, timing.calm_ms)), disturbed


def find_all(graph: Graph) -> tuple[list[Site], list[Refusal]]:
    """All sites and refusals of all techniques."""
    found = [technique.find(graph) for technique in DIAGNOSED]
    return [site for each in found for site in each.sites], [refusal for each in found for refusal in each.refusals]


def _worth_pricing(
    graph: Graph, sites: Sequence[Site], times: Mapping[str, float], latency_ms: float, deployment: Deployment
) -> tuple[list[Site], list[Refusal]]:
    """The sites that take at least `WORTH_SHARE` of the latency, alone or with all equal sites; the others refused.

    Those of the largest share come first.
    """
    worth: list[tuple[float, list[Site]]] = []
    small: dict[str, Refusal] = {}
    for group in alike.groups(graph, sites, deployment):
        taken = [_part_ms(graph, site, times, deployment) for site in group]
        total_ms = sum(latency_ms if each is None else each for each in taken)
        if total_ms >= WORTH_SHARE * latency_ms:
            worth.append((total_ms, group))
        else:
            reason = f"less than {WORTH_SHARE:.1%} of the time is spent there: not priced"
            small |= {site.layers[0]: Refusal("every technique", site.layers[0], reason) for site in group}
    worth.sort(key=lambda pair: pair[0], reverse=True)
    return [site for _, group in worth for site in group], list(small.values())


def _part_ms(graph: Graph, site: Site, times: Mapping[str, float], deployment: Deployment) -> float | None:
    """Milliseconds, in the profile, of the part of the network that the site's what-if times; None if unknown."""
    nodes = alike.part(graph, site, deployment)
    return None if nodes is None else part_ms(times, [node.name for node in nodes])


def finding(
    graph: Graph, site: Site, price: Price, times: Mapping[str, float], latency_ms: float, deployment: Deployment
) -> Finding:
    """The finding for a site, with its price scaled to the pace of the profile.

    `before_ms` is the part's time in the profile, and `after_ms` is `before_ms` times the what-if's ratio after /
    before. So only times of one run are compared, and the machine may slow down between profile and what-if.
    """
    part = latency_ms if site.whole or price.whole else _part_ms(graph, site, times, deployment)
    before_ms = min(latency_ms, price.before_ms if part is None else part)
    pace = before_ms / price.before_ms if price.before_ms else 1.0
    return Finding(
        technique=site.technique,
        layers=site.layers,
        needs=site.needs,
        before_ms=before_ms,
        after_ms=pace * price.after_ms,
        whole_ms=latency_ms,
        reason=site.reason,
        variant=site.variant,
        paper=named(site.technique).paper,
        layers_ms=part_ms(times, list(site.layers)),
        error_ms=None if price.error_ms is None else pace * price.error_ms,
    )


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings sorted by need (nothing, images, labels), then what-ifs before others, then largest saving first."""
    return tuple(
        sorted(
            findings,
            key=lambda each: (_NEEDS_ORDER.index(each.needs), each.basis != "what-if", -each.saving_ms),
        )
    )
