"""What-if timing: the part of the network that an edit changes is timed before and after the edit, on the runtime.

Both versions of the part are written as small files for the deployment and run interleaved in one process, so that
noise affects both alike. Inputs and outputs of the files have the deployed precision, too, so that no conversion is
timed that the whole network would not contain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev

import numpy as np
from torch import fx

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure, SlimsegError, Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer
from slimseg.planning.pricing import placing
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.runtimes import benchmark, calm, registry
from slimseg.runtimes.calm import Seen
from slimseg.runtimes.quantiser import Ends
from slimseg.techniques import Site, named

SECONDS_PER_FILE = 0.25
WHOLE = "whole"  # key of the unedited whole network among the written files
MOST_TOGETHER = 8  # edits of one part that are timed in one run
NO_TIME = "not timed, because the time for what-ifs was used up"


@dataclass(frozen=True)
class Price:
    """Median latencies of the changed part, from the undisturbed rounds of one interleaved run."""

    before_ms: float
    after_ms: float
    wins: float = 1.0  # share of the run's undisturbed rounds in which the part was faster after
    error_ms: float | None = None  # standard error of the saving; None if too few rounds count
    seen: Seen = calm.NOTHING
    whole: bool = False  # the part is the whole network

    @classmethod
    def of(cls, before: benchmark.Timing, after: benchmark.Timing) -> Price:
        """The price from two files timed in one run, over the rounds in which no other process had the processor.

        On a busy machine most rounds may be disturbed, each by some milliseconds, however short the file's own time
        is. A median over all rounds would then only show which file was disturbed more often.
        """
        rounds = list(zip(before.own_ms, after.own_ms, strict=True))
        both = zip(rounds, before.counting, after.counting, strict=True)
        counting = [pair for pair, old_counts, new_counts in both if old_counts and new_counts]
        known = any(before.taken_ms)  # if the rounds' processor time was measured, disturbed rounds are usable, too
        pairs = rounds if known and len(counting) < calm.ENOUGH else counting
        savings = [old - new for old, new in pairs]
        wins = sum(saving > 0 for saving in savings) / len(savings) if savings else 0.0
        error_ms = stdev(savings) / math.sqrt(len(savings)) if len(savings) >= calm.ENOUGH else None
        return cls(before.calm_ms, after.calm_ms, wins, error_ms, before.seen + after.seen)

    @property
    def saving_ms(self) -> float:
        return self.before_ms - self.after_ms

    def objection(self, sure: float = 0.0, worth_ms: float = 0.0) -> str | None:
        """Why an edit does not pay, or None if it does.

        Args:
            sure: least share of the rounds in which the part must be faster after the edit, 0-1.
            worth_ms: least saving.
        """
        measured = f"measured {self.before_ms:.3f} ms before and {self.after_ms:.3f} ms after"
        if self.saving_ms <= 0:
            return f"{measured}, no gain"
        if self.wins < sure:
            return f"{measured}, but faster only in {self.wins:.0%} of the runs"
        return f"{measured}, too small a gain for an edit" if self.saving_ms < worth_ms else None


@dataclass(frozen=True)
class Priced:
    prices: dict[Site, Price]
    refusals: tuple[Refusal, ...]

    @property
    def seen(self) -> Seen:
        """Observed disturbances of the machine, over all prices."""
        return sum((price.seen for price in dict.fromkeys(self.prices.values())), calm.NOTHING)


def price(
    graph: Graph,
    sites: Sequence[Site],
    deployment: Deployment,
    progress: Progress,
    seconds_per_file: float | None = None,
    until: float = math.inf,
) -> Priced:
    """Time every site's part of the network before and after its edit.

    After `until`, a `time.monotonic()`, the remaining sites are refused, so give the most important sites first. So are
    sites whose files cannot be written or run, and edits that move a layer off one of the deployment's other
    processors. Writing takes at most half of the time that is left.
    """
    refusals: list[Refusal] = []
    now = time.monotonic()
    written_by = until if math.isinf(until) else now + max(0.0, until - now) / 2
    with scratch.folder() as folder:
        files, guard = _Files(folder, deployment), placing.Guard(deployment)
        pairs: dict[Site, tuple[Path, Path]] = {}
        for site in progress.track(sites, "writing what-ifs"):
            if time.monotonic() >= written_by:
                refusals.append(Refusal(site.technique, site.layers[0], NO_TIME))
                continue
            try:
                pairs[site] = _pair(graph, site, files)
            except (SlimsegError, ValueError) as error:
                refusals.append(Refusal(site.technique, site.layers[0], f"its what-if cannot be written: {error}"))
        prices: dict[Site, Price] = {}
        seconds: dict[Path, float] = {}  # by file before the edit, how long one file of its last run took
        for before, group in progress.track(_by_before(pairs), "timing what-ifs"):
            begun = time.monotonic()
            afters = _in_time(group, until - begun, seconds.get(before, 0.0))
            refusals += [Refusal(site.technique, site.layers[0], NO_TIME) for site in group if site not in afters]
            if not afters:
                continue
            timed = _timed(before, afters, deployment.threads, seconds_per_file or SECONDS_PER_FILE)
            seconds[before] = (time.monotonic() - begun) / (len(afters) + 1)
            whole = before == files.written.get(WHOLE)
            objections = {site: guard.objection(before, after) for site, after in afters.items()}
            refusals += [
                Refusal(site.technique, site.layers[0], reason) for site, reason in objections.items() if reason
            ]
            prices |= {
                site: replace(each, whole=whole)
                for site, each in timed.items()
                if isinstance(each, Price) and objections[site] is None
            }
            refusals += [
                Refusal(site.technique, site.layers[0], f"its what-if cannot be timed: {result}")
                for site, result in timed.items()
                if not isinstance(result, Price)
            ]
    return Priced(prices, tuple(refusals))


def _by_before(pairs: Mapping[Site, tuple[Path, Path]]) -> list[tuple[Path, dict[Site, Path]]]:
    """Sites grouped by their file before the edit; each group is timed in one run, so variants compare fairly.

    Large groups, as of edits that are timed in the whole network, are divided, so that a time limit can hold.
    """
    groups: dict[Path, list[tuple[Site, Path]]] = {}
    for site, (before, after) in pairs.items():
        groups.setdefault(before, []).append((site, after))
    return [
        (before, dict(afters[start : start + MOST_TOGETHER]))
        for before, afters in groups.items()
        for start in range(0, len(afters), MOST_TOGETHER)
    ]


def _in_time(afters: dict[Site, Path], left_s: float, seconds: float) -> dict[Site, Path]:
    """The first of the files that can be timed in `left_s`, with the file before the edit, at `seconds` for each."""
    if left_s <= 0:
        return {}
    fit = len(afters) if seconds == 0 or math.isinf(left_s) else max(0, int(left_s / seconds) - 1)
    return dict(list(afters.items())[:fit])


def _timed(
    before: Path, afters: Mapping[Site, Path], threads: int, seconds: float
) -> dict[Site, Price | RuntimeFailure]:
    """Prices from one interleaved run; if it fails, from one run per site, so that one bad file fails alone."""
    try:
        first, *others = benchmark.time_files([before, *afters.values()], threads, seconds)
    except RuntimeFailure as error:
        if len(afters) == 1:
            return dict.fromkeys(afters, error)
        alone = [_timed(before, {site: after}, threads, seconds) for site, after in afters.items()]
        return {site: result for each in alone for site, result in each.items()}
    return {site: Price.of(first, each) for site, each in zip(afters, others, strict=True)}


def compare(before: Graph, after: Graph, deployment: Deployment) -> Price:
    """Time two whole networks, interleaved."""
    with scratch.folder() as folder:
        files = _Files(folder, deployment)
        pair = [files.of(before, "before"), files.of(after, "after")]
        timings = benchmark.time_files(pair, deployment.threads, 4 * SECONDS_PER_FILE)
    return Price.of(*timings)


def file_latency_ms(path: Path, threads: int = 1) -> float:
    """Median latency of a file over undisturbed rounds."""
    (timing,) = benchmark.time_files([path], threads)
    return timing.calm_ms


def latency_ms(graph: Graph, deployment: Deployment) -> float:
    """Median latency of the whole network, written for that deployment."""
    with scratch.folder() as folder:
        (timing,) = benchmark.time_files([_Files(folder, deployment).of(graph, WHOLE)], deployment.threads)
    return timing.calm_ms


def _pair(graph: Graph, site: Site, files: _Files) -> tuple[Path, Path]:
    edited = named(site.technique).apply(graph, site)
    if site.whole:
        return files.of(graph, WHOLE), files.of(edited, f"{site.technique} {site.settings}")
    target = end_of_part(graph, site.target, files.deployment)
    try:
        before, after = edit.extract(graph, site.source, target), edit.extract(edited, site.source, target)
    except Unsupported:  # the part has further inputs beside its source: time the whole network
        return files.of(graph, WHOLE), files.of(edited, f"{site.technique} {site.layers} {site.settings}")
    return files.of(before, f"{site.source} {target}"), files.of(
        after, f"{site.technique} {site.layers} {site.settings}"
    )


def end_of_part(graph: Graph, target: str, deployment: Deployment) -> str:
    """The last node that the runtime would fuse into the operator of `target`."""
    fuses = registry.known(deployment.runtime).fuses
    node: fx.Node = graph.node(target)
    while (reader := only_consumer(node)) is not None and (layer := graph.layer(reader)) and fuses(layer):
        node = reader
    return node.name


class _Files:
    """Writes each part of the network once, however many edits are compared with it."""

    def __init__(self, folder: Path, deployment: Deployment) -> None:
        self.folder = folder
        self.deployment = deployment
        self.written: dict[str, Path] = {}

    def of(self, graph: Graph, key: str) -> Path:
        if key not in self.written:
            path = self.folder / f"{len(self.written)}"
            self.written[key] = written(graph, self.deployment, path)
        return self.written[key]


def written(graph: Graph, deployment: Deployment, path: Path, ends: Ends | None = None) -> Path:
    """Write the graph to a file with the latency and size of the deployment; int8 ranges are calibrated on noise only.

    Returns `path` with the runtime's suffix. Inputs and outputs have the deployed precision, too, unless `ends` names
    another; a network that ends with an argmax takes floats.
    """
    its = registry.known(deployment.runtime)
    path = path.with_suffix(its.suffix)
    if deployment.precision != "int8":
        its.write(graph, path)
        return path
    _, channels, height, width = graph.input_shape
    sample = np.random.default_rng(0).standard_normal((1, height, width, channels)).astype(np.float32)
    own: Ends = "float32" if graph.layer_as(graph.output, ops.ArgMax) else "int8"
    its.write_int8(graph, path, [sample], ends or own)
    return path
