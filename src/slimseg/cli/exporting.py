"""`slimseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimseg.cli.opening import Opening, size
from slimseg.cli.opening import images as folder_of
from slimseg.cli.options import (
    EVERYTHING,
    Anyway,
    AsJson,
    CoreMLSizes,
    Foreground,
    Kind,
    Mean,
    Order,
    Output,
    Size,
    Std,
    Threads,
    To,
    Weights,
)
from slimseg.cli.showing import progress, show


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A model file, file.py:function, or the folder of a finished run of slim.", metavar="MODEL"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files and their model card.")],
    to: To = EVERYTHING,
    data: Annotated[
        Path | None, typer.Option(help="Images, with or without masks, for comparing outputs and for int8 calibration.")
    ] = None,
    foreground: Foreground = None,
    head: Annotated[str | None, typer.Option(help="Output: logits, probabilities or mask. Default: unchanged.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of images to compare masks on.")] = 20,
    coreml_sizes: CoreMLSizes = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights in one sentence, for the model card and the files.")
    ] = None,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    threads: Threads = 1,
    anyway: Anyway = False,
    json: AsJson = False,
) -> None:
    """One network as files for the runtimes of phones: each compared with it, with a model card.

    Example:  slimseg export run/ --data images/ --out app/
    """
    from slimseg.commands.export import export as run
    from slimseg.report.export import show_export
    from slimseg.report.model_card import NO_LICENCE

    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    source = model if Path(model).is_dir() else opening.load()
    sizes = [size(each, "--coreml-sizes") for each in coreml_sizes.split(",")] if coreml_sizes else []
    result = run(
        source,
        out=out,
        to=to,
        head=head,  # type: ignore[arg-type]
        images=folder_of(data, foreground),
        compared=images,
        licence=licence or NO_LICENCE,
        sizes=sizes,
        threads=threads,
        anyway=anyway,
        progress=progress(),
    )
    show(result, json, lambda: show_export(result))
    if result.failed:
        raise typer.Exit(1)
