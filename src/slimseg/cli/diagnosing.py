"""`slimseg diagnose`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from slimseg.cli.opening import Opening, runtime_named
from slimseg.cli.options import AsJson, Kind, Mean, Model, On, Order, Output, Size, Std, Threads, Verbose, Weights
from slimseg.cli.showing import progress, show
from slimseg.errors import UnknownOperator

if TYPE_CHECKING:
    from slimseg.graph.graph import Graph


def diagnose(
    model: Model,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    precision: Annotated[
        str | None, typer.Option(help="Time edits in this precision: float32 or int8. Default: the file's.")
    ] = None,
    runtime: On = None,
    threads: Threads = 1,
    time_limit: Annotated[str, typer.Option(help="About how long it may take: 60s, 5m.")] = "60s",
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """What could be saved, where, and what it takes: every finding timed before and after.

    Example:  slimseg diagnose network.tflite
    """
    from slimseg.commands.diagnose import diagnose as run
    from slimseg.planning.choosing.budget import parse_time
    from slimseg.report.terminal import show_diagnosis
    from slimseg.runtimes.registry import deployment

    deployment(runtime_named(runtime), precision)  # a mistake is told before the model is opened
    limit_s = parse_time(time_limit)
    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    try:
        source: Graph | str = opening.load(say_notes=False)
    except UnknownOperator:
        source = model  # a .tflite can still be timed
    result = run(
        source,
        precision=precision,
        threads=threads,
        time_limit_s=limit_s,
        progress=progress(),
        runtime=runtime,
    )
    show(result, json, lambda: show_diagnosis(result, verbose=verbose))
