"""`slimseg quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from slimseg.cli.opening import Opening, images, runtime_named
from slimseg.cli.options import (
    AsJson,
    Foreground,
    Kind,
    Mean,
    Model,
    On,
    Order,
    Output,
    Size,
    Std,
    Threads,
    Verbose,
    Weights,
)
from slimseg.cli.showing import exit_by_budget, progress, show
from slimseg.errors import UserError

_IO: dict[str, Literal["float32", "int8", "image"]] = {"float": "float32", "int8": "int8", "uint8-image": "image"}


def quantize(
    model: Model,
    out: Annotated[Path, typer.Option(help="Path of the file to write: a .tflite, or what --runtime has.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", "--images", help="Folder with train/val x images/masks, or images alone."),
    ] = None,
    foreground: Foreground = None,
    scheme: Annotated[
        str, typer.Option(help="Quantisation scheme: float16, dynamic, weight-only, int8, int16x8, or auto.")
    ] = "auto",
    io: Annotated[str, typer.Option(help="Input of the file: float, int8, or uint8-image for RGB bytes.")] = "float",
    ranges: Annotated[
        str, typer.Option(help="Ranges of activations: mean, minmax, percentile, mse, or auto.")
    ] = "auto",
    correct: Annotated[
        str, typer.Option(help="Correction of weights for int8: none, equalise, bias, both, or auto.")
    ] = "auto",
    keep_float: Annotated[
        str,
        typer.Option(help="Layers that int8 leaves in float32: none, LAYER,LAYER, or auto: those the budget requires."),
    ] = "auto",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure how many pixels change if one layer alone is int8.")
    ] = False,
    train: Annotated[
        str | None, typer.Option(help="Time for training in int8, starting from the best int8 file: 10m.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="Largest loss in points of mIoU; without labels, in percent of pixels changed.")
    ] = 1.0,
    max_size: Annotated[str | None, typer.Option(help="Largest size of the file: 4MB, 900kB.")] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="Most images for calibration, spread over the folder.")
    ] = 100,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    runtime: On = None,
    threads: Threads = 1,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Quantisation without guessing: every scheme written, timed and judged; the best is kept.

    Example:  slimseg quantize network.tflite --data images/ --out network_int8.tflite

    With quantisation-aware training:  slimseg quantize network.tflite --data images/ --train 10m --out trained.tflite

    Exit code 3: the file is there, but outside the budget.
    """
    from slimseg.commands.quantize import quantize as run
    from slimseg.frontends import chosen_output
    from slimseg.planning.choosing.budget import Budget, parse_size, parse_time
    from slimseg.report.quantisation import show_quantisation

    if io not in _IO:
        raise UserError(f"--io {io!r} must be one of {', '.join(_IO)}")
    budget = Budget(max_size_bytes=parse_size(max_size) if max_size else None, max_drop=max_drop)
    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    own_file = model.lower().endswith(".tflite") and input_size is None and weights is None
    own_file = own_file and chosen_output(model, output)[0] == 0  # runtimes hand out the first
    source = model if own_file else opening.load()
    description = opening.describe() if own_file else None
    result = run(
        source,
        out=out,
        images=images(data, foreground),
        scheme=scheme,
        io=_IO[io],
        ranges=ranges,
        correct=correct,  # type: ignore[arg-type]
        keep_float=keep_float,
        sensitivity=sensitivity,
        train_s=parse_time(train) if train else 0.0,
        budget=budget,
        calibration_images=calibration_images,
        description=description,
        threads=threads,
        runtime=runtime_named(runtime),
        progress=progress(),
    )
    show(result, json, lambda: show_quantisation(result, verbose=verbose))
    exit_by_budget(result.budget_met)
