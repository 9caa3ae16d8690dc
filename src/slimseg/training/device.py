"""The device for forward passes and gradients outside training: a GPU that torch can use (CUDA), else the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def best() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def on_best(*modules: nn.Module) -> Iterator[torch.device]:
    """Move modules to the best device, and back to the CPU at the end: edits and writers work on the CPU."""
    device = best()
    if device.type == "cpu":
        yield device
        return
    try:
        _move(modules, device)
        yield device
    finally:
        _move(modules, torch.device("cpu"))


def _move(modules: tuple[nn.Module, ...], device: torch.device) -> None:
    """Parameters that are made in inference mode could not be trained afterwards."""
    with torch.inference_mode(False):
        for module in modules:
            module.to(device)
