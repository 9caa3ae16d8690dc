"""Writes the files that are deployed, and turns their measured times into savings, edit by edit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimseg import ratios
from slimseg.deployment import Deployment
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.progress import Progress
from slimseg.results import AppliedEdit, BudgetCheck, ModelSummary, Placement
from slimseg.runtimes import deployed, registry
from slimseg.techniques import Site, named
from slimseg.techniques.channels import Channels
from slimseg.training.metrics import Accuracy

Images = Sequence[NDArray[np.uint8]]  # RGB, (height, width, 3)
QUANTISATION = "int8 quantisation"
WRITING = "writing the file"  # slimseg writes the user's own file anew


def summarise(graph: Graph, path: Path, latency_ms: float, end_to_end_ms: float, accuracy: Accuracy) -> ModelSummary:
    """The numbers of one deployed file."""
    cost = costs.total(graph)
    return ModelSummary(
        file=path.name,
        input_size=graph.input_size,
        latency_ms=latency_ms,
        end_to_end_ms=end_to_end_ms,
        size_bytes=registry.size_bytes(path),
        macs=cost.macs,
        params=cost.params,
        miou=accuracy.miou,
        agreement=accuracy.agreement,
        weights=registry.of(path).weights(path),
    )


def size_and_speed(budget: Budget, size_bytes: int, speedup: float) -> tuple[BudgetCheck, ...]:
    """Checks of the deployed file's size and speed-up, for those of the two that the budget bounds."""
    checks = []
    if budget.max_size_bytes is not None:
        most = budget.max_size_bytes / 1e6
        wanted, got = f"at most {most:g} MB", f"{ratios.beside(size_bytes / 1e6, most, 2)} MB"
        checks.append(BudgetCheck("max_size", wanted, got, size_bytes <= budget.max_size_bytes))
    if budget.min_speedup is not None:
        wanted, got = f"at least {budget.min_speedup:g}x", f"{ratios.beside(speedup, budget.min_speedup, 1)}x"
        checks.append(BudgetCheck("min_speedup", wanted, got, speedup >= budget.min_speedup))
    return tuple(checks)


def placed(path: Path, deployment: Deployment) -> tuple[Placement, ...]:
    """Where a file's layers run, on every processor of the deployment beside the one that it is timed on."""
    return tuple(each.place(path) for each in registry.others(deployment))


def whole(placements: Sequence[Placement]) -> tuple[BudgetCheck, ...]:
    """Checks that every processor takes the whole file."""
    return tuple(
        BudgetCheck(each.processor, "every layer", f"{each.taken} of {len(each.layers)} layers", each.is_whole)
        for each in placements
    )


def points(value: float, most: float = math.inf) -> str:
    """A loss with two decimals, or with more if they are needed to show whether it is within `most`; never "-0.00"."""
    return ratios.beside(value, most, 2)


def grouped(plan: Sequence[PlannedEdit]) -> list[tuple[PlannedEdit, ...]]:
    """Groups of edits that are measured and reported together.

    Consecutive exact edits of one technique and variant form a group: a network with a hundred activations may get a
    hundred equal edits. An approximation forms a group of its own, with two exceptions: all edits that remove channels
    form one group, and so do consecutive edits whose separate savings have large standard errors.
    """
    groups: list[list[PlannedEdit]] = []
    for edit in plan:
        if groups and _together(groups[-1][-1], edit):
            groups[-1].append(edit)
        else:
            groups.append([edit])
    return [tuple(group) for group in groups]


def _together(first: PlannedEdit, second: PlannedEdit) -> bool:
    if first.site.technique != second.site.technique or first.serves != second.serves:
        return False
    if second.with_previous or first.site.technique == Channels.name:
        return True
    exact = first.site.needs == second.site.needs == "nothing"
    return exact and first.site.settings == second.site.settings


def write_stages(
    original: Graph,
    plan: Sequence[PlannedEdit],
    folder: Path,
    images: Images,
    deployment: Deployment,
    progress: Progress,
) -> list[Path]:
    """Apply the groups of edits to the original one after another, and write a file after each group.

    Weights do not influence the time, so the stages are not trained. `images` calibrate the ranges of int8 files.
    """
    paths: list[Path] = []
    stage = original
    for number, group in enumerate(progress.track(grouped(plan), "writing every stage")):
        for edit in group:
            stage = named(edit.site.technique).apply(stage, edit.site)
        paths.append(deployed.write_deployed(stage, folder / f"stage{number}", images[:1], deployment))
    return paths


def realised(
    plan: Sequence[PlannedEdit], stages_ms: Sequence[float], errors_ms: Sequence[float] | None = None
) -> tuple[AppliedEdit, ...]:
    """The measured saving of each group of edits: the difference of two successive stages of one interleaved run.

    `stages_ms` are the latencies of the original in the deployed precision, of the file after each group, and last of
    the deployed file; the savings add up to the whole gain. `errors_ms` are the savings' standard errors, if known.
    """
    groups, savings = grouped(plan), savings_ms(stages_ms)
    errors: Sequence[float | None] = errors_ms or [None] * len(groups)
    return tuple(_applied(*each) for each in zip(groups, savings, errors, strict=True))


def in_place(plan: Sequence[PlannedEdit], stages_ms: Sequence[float]) -> tuple[PlannedEdit, ...]:
    """The edits with corrected predictions: what each group saved on top of the groups before it.

    A what-if times a part of the network alone. It misses how neighbouring layers share the caches, and that one edit
    may reduce what another one saves.
    """
    corrected: list[PlannedEdit] = []
    for group, saving_ms in zip(grouped(plan), savings_ms(stages_ms), strict=False):
        alone = sum(edit.predicted_saving_ms for edit in group)
        shares = [edit.predicted_saving_ms / alone if alone else 1 / len(group) for edit in group]
        corrected += [
            replace(edit, predicted_saving_ms=saving_ms * share, alone_saving_ms=edit.predicted_saving_ms)
            for edit, share in zip(group, shares, strict=True)
        ]
    return tuple(corrected)


def savings_ms(stages_ms: Sequence[float]) -> list[float]:
    """By how many milliseconds each stage of one interleaved run is faster than the stage before."""
    return [before - after for before, after in pairwise(stages_ms)]


def _applied(group: Sequence[PlannedEdit], realised_saving_ms: float, error_ms: float | None) -> AppliedEdit:
    largest = max(group, key=lambda edit: edit.predicted_saving_ms).site
    return AppliedEdit(
        technique=largest.technique,
        layers=tuple(dict.fromkeys(layer for edit in group for layer in edit.site.layers)),
        needs=largest.needs,
        predicted_saving_ms=sum(edit.predicted_saving_ms for edit in group),
        realised_saving_ms=realised_saving_ms,
        reason=_reason(group, largest),
        alone_saving_ms=_sum([edit.alone_saving_ms for edit in group]),
        realised_error_ms=error_ms,
    )


def _reason(group: Sequence[PlannedEdit], largest: Site) -> str:
    if len({edit.site.settings for edit in group}) > 1:
        return ", ".join(f"{edit.site.layers[0]} {edit.site.variant}" for edit in group)
    served = f", so that {group[0].serves} takes it" if group[0].serves else ""
    others = f"{served}; {len(group) - 1} more of the same kind" if len(group) > 1 else served
    return (f"{largest.variant}: {largest.reason}" if largest.variant else largest.reason) + others


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
