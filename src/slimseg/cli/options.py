"""Options that several commands have, as Typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL = typer.Argument(
    help="A .tflite, .onnx, .keras, .h5 or .pt2 file, file.py:function or package.module:function.", metavar="MODEL"
)
Model = Annotated[str, MODEL]
Data = Annotated[Path, typer.Option(help="Folder with train/val x images/masks, or images alone.")]
Foreground = Annotated[
    str | None,
    typer.Option(
        help="In masks of two classes, the value of the second; none: values are class indices, 255 ignored. Default: "
        "255 where masks have only 0 and 255."
    ),
]
Weights = Annotated[Path | None, typer.Option(help=".safetensors or .pth for file.py:function; never unpickled.")]
Size = Annotated[str | None, typer.Option(help="Input size HEIGHTxWIDTH; a .pt2 knows its own.")]
Mean = Annotated[str | None, typer.Option(help="Subtracted from each byte: one number or three, 127 or 124,116,104.")]
Std = Annotated[str | None, typer.Option(help="Divides what is left: one number or three, in bytes, too.")]
Order = Annotated[str | None, typer.Option(help="rgb or bgr.")]
Output = Annotated[str | None, typer.Option("--output", help="Of several outputs, the one to use: name or number.")]
Kind = Annotated[str | None, typer.Option(help="What the model gives: logits, probabilities or mask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")]
On = Annotated[str | None, typer.Option("--runtime", help="litert or ncnn. Default: the file's, else litert.")]
Threads = Annotated[int, typer.Option(min=1, max=64, help="CPU threads of the runtime.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Export a result outside its budget, too; its card says so.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every site, variant and refused rewrite.")]
EVERYTHING = "tflite,coreml,ncnn"
To = Annotated[
    str,
    typer.Option(
        help="Targets with commas between, each perhaps with a form: tflite:float32|float16|int8, "
        "coreml:float16|float32|palettised|linear, ncnn:fp16|fp32."
    ),
]
AlsoTo = Annotated[
    str | None, typer.Option("--to", help=f"Export the result into OUT/export, too: {EVERYTHING}. See export --help.")
]
CoreMLSizes = Annotated[
    str | None,
    typer.Option("--coreml-sizes", help="Further sizes HEIGHTxWIDTH,HEIGHTxWIDTH that the Core ML package takes."),
]
