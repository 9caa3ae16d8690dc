"""`slimseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimseg.cli.opening import Opening, size
from slimseg.cli.opening import images as folder_of
from slimseg.cli.options import (
    Anyway,
    AsJson,
    Foreground,
    Kind,
    Mean,
    Order,
    Output,
    Size,
    Std,
    Threads,
    Weights,
)
from slimseg.cli.showing import progress, show


def export(
    model: Annotated[
        str, typer.Argument(help="A model file, file.py:function, or the folder of a run of slim.", metavar="MODEL")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files and their model card.")],
    to: Annotated[
        str,
        typer.Option(
            help="tflite, coreml, ncnn, with commas between; each perhaps with a form: tflite:float32|float16|int8, "
            "coreml:float16|float32|palettised|linear, ncnn:fp16|fp32."
        ),
    ] = "tflite,coreml,ncnn",
    data: Annotated[
        Path | None, typer.Option(help="Images, perhaps with masks, to compare on and to take int8 ranges from.")
    ] = None,
    foreground: Foreground = None,
    head: Annotated[str | None, typer.Option(help="Output: logits, probabilities or mask. Default: as it is.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images to compare masks on.")] = 20,
    coreml_sizes: Annotated[
        str | None, typer.Option(help="Further sizes HEIGHTxWIDTH,HEIGHTxWIDTH that the Core ML package takes.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, in a sentence, for card and files.")] = None,
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
    """One network as files for LiteRT and MediaPipe Tasks, Core ML and ncnn: each compared with it, with a model card.

    Example:  slimseg export run/ --to tflite,coreml,ncnn --data images/ --out app/
    """
    from slimseg.export import export as run
    from slimseg.report.export import show_export
    from slimseg.report.model_card import NO_LICENCE

    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    source = model if Path(model).is_dir() else opening.load()
    sizes = [size(each, "--coreml-sizes") for each in coreml_sizes.split(",")] if coreml_sizes else []
    result = run(
        source,
        out,
        to,
        head,  # type: ignore[arg-type]
        folder_of(data, foreground),
        images=images,
        licence=licence or NO_LICENCE,
        sizes=sizes,
        threads=threads,
        anyway=anyway,
        progress=progress(),
    )
    show(result, json, lambda: show_export(result))
    if result.failed:
        raise typer.Exit(1)
