"""What runs in the child process of the GPU delegate: it compiles and runs files, and prints what it has to say.

The process keeps one environment of LiteRT, which opens the driver once. LiteRT's public Python API is all it uses.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.runtimes.kept import Kept
from slimseg.tflite import file

Array = np.ndarray[Any, Any]
_KEPT = 2  # compiled files that the process keeps
_environment: Any = None
_compiled: Kept[Any] = Kept(_KEPT)


def load(loader: str) -> None:
    """Load the Vulkan loader `loader`, for a system that has none: the delegate finds it in the process by its name."""
    ctypes.CDLL(loader, ctypes.RTLD_GLOBAL)


def takes(model: str | bytes) -> str:
    """Compile a file for the GPU alone. Returns LiteRT's error, or an empty text if the GPU takes all of it."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    create = CompiledModel.from_buffer if isinstance(model, bytes) else CompiledModel.from_file
    try:
        create(model, HardwareAccelerator.GPU, environment=_opened())
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def run(path: str, inputs: Array) -> Array:
    """Outputs for each of `inputs` (N, H, W, C), in the file's own types, computed by the GPU as far as it takes it."""
    model, described = _loaded(path), file.read(path)
    index = described.main_signature
    sources, results = model.create_input_buffers(index), model.create_output_buffers(index)
    signature = model.get_signature_by_index(index)
    inward, outward = (model.get_input_tensor_details, model.get_output_tensor_details)
    source = _place(signature["inputs"], inward(signature["key"]), described.inputs[0].name)
    result = _place(signature["outputs"], outward(signature["key"]), described.outputs[0].name)
    shape, dtype = described.outputs[0].shape, np.dtype(described.outputs[0].dtype)
    outputs = []
    for image in inputs:
        sources[source].write(np.ascontiguousarray(image[None]))
        model.run_by_index(index, sources, results)
        outputs.append(results[result].read(int(np.prod(shape)), dtype).reshape(shape))
    return np.concatenate(outputs)


def _opened() -> Any:
    global _environment
    if _environment is None:
        import ai_edge_litert
        from ai_edge_litert.environment import Environment, EnvironmentOptions

        folder = os.path.dirname(os.path.abspath(ai_edge_litert.__file__))
        _environment = Environment.create(options=EnvironmentOptions(runtime_path=folder))
    return _environment


def _loaded(path: str) -> Any:
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    stat = file.stat(Path(path))
    key = (path, stat.st_mtime_ns, stat.st_size)
    both = HardwareAccelerator.GPU | HardwareAccelerator.CPU
    return _compiled.get(key, lambda: CompiledModel.from_file(path, both, environment=_opened()))


def _place(names: Sequence[str], details: Mapping[str, Any], tensor: str) -> int:
    """The position of a tensor in the signature, which has names of its own for inputs and outputs."""
    return next((number for number, name in enumerate(names) if details[name]["name"] == tensor), 0)
