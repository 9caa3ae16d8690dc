"""`slimseg evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from slimseg.cli.opening import Opening, processors_named, runtime_named
from slimseg.cli.options import (
    AsJson,
    Data,
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
    Threads,
    VulkanDriver,
    Weights,
)
from slimseg.cli.showing import progress, show
from slimseg.errors import UserError


def evaluate(
    model: Model,
    data: Data,
    foreground: Foreground = None,
    split: Annotated[str, typer.Option(help="Part of the folder to evaluate: val or train.")] = "val",
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
    json: AsJson = False,
) -> None:
    """mIoU, IoU by class and pixel accuracy of the deployed file. Preprocessing is inside files that slimseg wrote.

    Example:  slimseg evaluate run/model.tflite --data images/
    """
    from slimseg.commands.evaluate import evaluate as run
    from slimseg.frontends import opens
    from slimseg.report.terminal import show_evaluation
    from slimseg.runtimes.registry import runs_unchanged
    from slimseg.training.data import open_folder

    opening = Opening(model, weights, input_size, mean, std, channel_order, output_kind, output)
    on = runtime_named(runtime)
    others = processors_named(model, on, processor, vulkan_driver)
    if len(others) > 1:
        raise UserError("evaluate measures one processor beside the CPU: name one in --processor")
    deployed = runs_unchanged(model, on)
    network = model if deployed else opening.load()
    description = opening.describe() if deployed and opens(model) else None
    result = run(
        network,
        images=open_folder(data, foreground),
        split=split,
        runtime=on,
        description=description,
        output=output,
        threads=threads,
        processor=others[0] if others else None,
        progress=progress(),
    )
    show(result, json, lambda: show_evaluation(result))
