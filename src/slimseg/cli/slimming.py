"""`slimseg slim`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimseg.cli.opening import Opening, images, runtime_named
from slimseg.cli.options import (
    AlsoTo,
    Anyway,
    AsJson,
    Foreground,
    Kind,
    Mean,
    Model,
    On,
    Order,
    Output,
    Processors,
    Size,
    Std,
    Verbose,
    Weights,
)
from slimseg.cli.showing import exit_by_budget, note, print_json, progress
from slimseg.deployment import CPU, DEFAULT_RUNTIME
from slimseg.stopping import keeping

if TYPE_CHECKING:
    from slimseg.exporting.targets import Target
    from slimseg.results import ExportResult
    from slimseg.training.data import Folder


def slim(
    model: Model,
    out: Annotated[Path, typer.Option(help="New folder for the result, or the folder of a run to resume.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with train/val x images/masks, or images alone; not needed with --needs nothing."),
    ] = None,
    foreground: Foreground = None,
    max_size: Annotated[str | None, typer.Option(help="Largest size of the deployed file: 4MB, 900kB.")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Smallest speed-up over the float32 original.")] = None,
    max_drop: Annotated[
        float, typer.Option(help="Largest loss in points of mIoU; without labels, in percent of pixels changed.")
    ] = 1.0,
    needs: Annotated[str, typer.Option(help="The most an edit may ask for: nothing, images or labels.")] = "labels",
    time_limit: Annotated[str, typer.Option(help="Time for the whole run: 45m, 90s, 1h.")] = "45m",
    runtime: On = None,
    processor: Processors = None,
    head: Annotated[str | None, typer.Option(help="Output: logits, probabilities or mask. Default: unchanged.")] = None,
    to: AlsoTo = None,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    anyway: Anyway = False,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make a network small and fast within a budget: edit, recover, quantise, prove.

    Example:  slimseg slim network.pt2 --data images/ --out run/ --mean 127 --std 128 --max-size 1MB --min-speedup 32

    Without data:  slimseg slim network.tflite --needs nothing --out run/

    Exit code 3: the result is there, but outside the budget; --to then exports it only with --anyway.
    """
    from slimseg.commands.slim import slim as run
    from slimseg.exporting.targets import parse
    from slimseg.planning.choosing.budget import Budget, parse_size, parse_time
    from slimseg.report.export import show_export
    from slimseg.report.terminal import show_slim

    budget = Budget(
        max_size_bytes=parse_size(max_size) if max_size else None,
        min_speedup=min_speedup,
        max_drop=max_drop,
        needs=needs,  # type: ignore[arg-type]
        time_limit_s=parse_time(time_limit),
        head=head,  # type: ignore[arg-type]
        runtime=runtime_named(runtime) or DEFAULT_RUNTIME,
        processor=processor or CPU,
    )
    targets = parse(to) if to else ()  # a mistake in it is told before the work
    folder = images(data, foreground)
    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    result = run(opening.load(), images=folder, out=out, budget=budget, seed=seed, progress=progress())
    if not json:
        show_slim(result, verbose=verbose)
    exported = None
    try:
        if targets and (result.budget_met or anyway):
            exported = _exported(out, targets, folder, anyway)
        elif targets:
            note("Not exported, because the result misses its budget: slimseg export --anyway exports it nevertheless")
    finally:  # a network that was slimmed is told of, too, where it could not be exported
        if json:
            print_json(replace(result, exported=exported))
    if exported and not json:
        show_export(exported)
    exit_by_budget(result.budget_met)
    if exported and exported.failed:
        raise typer.Exit(1)


def _exported(out: Path, targets: Sequence[Target], folder: Folder | None, anyway: bool) -> ExportResult:
    """The finished run in `out` as files for apps."""
    from slimseg.commands.export import export

    with keeping(lambda: f"{out} holds the finished run: the same command continues with its export."):
        return export(out, out=out / "export", to=targets, images=folder, anyway=anyway, progress=progress())
