"""`slimseg profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimseg.cli.opening import Opening, processors_named, runtime_named
from slimseg.cli.options import (
    AsJson,
    Kind,
    Mean,
    Model,
    On,
    Order,
    Output,
    Processors,
    Size,
    Std,
    Threads,
    VulkanDriver,
    Weights,
)
from slimseg.cli.showing import progress, show
from slimseg.deployment import DEFAULT_RUNTIME

if TYPE_CHECKING:
    from slimseg.graph.graph import Graph
    from slimseg.runtimes.processor import Processor


def profile(
    model: Model,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    runtime: On = None,
    processor: Processors = None,
    vulkan_driver: VulkanDriver = None,
    threads: Threads = 1,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Number of profiled inferences.")] = 30,
    top: Annotated[int, typer.Option(min=1, help="Number of layers to show.")] = 15,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Show every layer, with first, average, minimum and maximum time.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write a CSV table of every layer.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Also write a trace of one run for chrome://tracing or Perfetto.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Where the time goes, layer by layer, on a real runtime. With --processor, where each layer would run on a phone.

    Example:  slimseg profile network.tflite --csv layers.csv --trace trace.json

    Example:  slimseg profile network.tflite --processor gpu
    """
    from slimseg.commands.profile import profile as run
    from slimseg.report.profile_files import write_csv, write_trace
    from slimseg.report.terminal import show_profile
    from slimseg.runtimes.registry import known, of, runs_unchanged

    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    on = runtime_named(runtime)
    own = runs_unchanged(model, on)
    its = of(model) if own else known(on or DEFAULT_RUNTIME)
    if others := processors_named(model, on, processor, vulkan_driver):
        _placed(model if own else opening.load(), others, on, statistics, json)
        return
    with progress().console.status(f"profiling on {its.brand}"):
        result = run(model if own else opening.load(), threads=threads, runs=runs, runtime=on)
    if csv is not None:
        write_csv(result, csv)
    if trace is not None:
        write_trace(result, trace)
    show(result, json, lambda: show_profile(result, top=top, statistics=statistics))


def _placed(
    model: Graph | str, processors: tuple[Processor, ...], runtime: str | None, verbose: bool, json: bool
) -> None:
    from slimseg.commands.place import place
    from slimseg.report.placement import show_placements

    with progress().console.status(f"asking {', '.join(each.title for each in processors)}"):
        result = place(model, processors, runtime=runtime)
    show(result, json, lambda: show_placements(result, verbose=verbose))
