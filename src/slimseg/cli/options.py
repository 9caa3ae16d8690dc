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
        help="Value of the second class in masks of two classes; none: values are class indices, 255 ignored. Default: "
        "255 if all masks have only 0 and 255."
    ),
]
Weights = Annotated[Path | None, typer.Option(help=".safetensors or .pth file for file.py:function; never unpickled.")]
Size = Annotated[str | None, typer.Option(help="Input size HEIGHTxWIDTH; not needed if the file states it.")]
Mean = Annotated[
    str | None, typer.Option(help="Subtracted from each byte: one number or three, such as 127 or 124,116,104.")
]
Std = Annotated[
    str | None, typer.Option(help="Divides the byte after --mean is subtracted: one number or three, in bytes.")
]
Order = Annotated[str | None, typer.Option(help="Channel order of the input: rgb or bgr.")]
Output = Annotated[
    str | None, typer.Option("--output", help="Name or number of the output to use if there are several.")
]
Kind = Annotated[str | None, typer.Option(help="Kind of the model's output: logits, probabilities or mask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")]
On = Annotated[
    str | None, typer.Option("--runtime", help="litert, ncnn or onnxruntime. Default: the file's, otherwise litert.")
]
Processors = Annotated[
    str | None,
    typer.Option("--processor", help="A phone's processors, separated by commas: cpu, gpu. See slimseg processors."),
]
VulkanDriver = Annotated[
    Path | None,
    typer.Option(
        "--vulkan-driver", help="Vulkan driver to ask the GPU delegate on: its manifest (.json) or its library."
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=64, help="CPU threads of the runtime.")]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Export even a result that misses its budget; its model card says so.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every site, variant and refused rewrite.")]
EVERYTHING = "tflite,coreml,ncnn,onnx"
To = Annotated[
    str,
    typer.Option(
        help="Targets separated by commas, each with an optional form: tflite:float32|float16|int8, "
        "coreml:float16|float32|palettised|linear, ncnn:fp16|fp32, onnx:float32|float16|int8. tflite:sm8750 compiles "
        "for the NPU of that chip, tflite:int8-sm8750,int8-sm8650 the int8 file for two of them."
    ),
]
AlsoTo = Annotated[
    str | None, typer.Option("--to", help=f"Also export the result into OUT/export: {EVERYTHING}. See export --help.")
]
CoreMLSizes = Annotated[
    str | None,
    typer.Option("--coreml-sizes", help="Further input sizes of the Core ML package: HEIGHTxWIDTH,HEIGHTxWIDTH."),
]
