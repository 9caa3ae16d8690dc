"""A network with layers that slimseg cannot say in ncnn, through pnnx, Tencent's converter (an optional extra).

pnnx reads a TorchScript file and leaves eight files in its folder, of which two are wanted. It ends well, too, when it
has written layers that ncnn does not have (`torch.narrow`, `F.interpolate`, `Tensor.reshape`, ...): their names, with a
dot in them, tell.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from slimseg.disk import scratch
from slimseg.errors import ModelError, Unsupported, one_line
from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.ncnn import file
from slimseg.runtimes.ncnn.net import Storage

INSTALL = "pip install 'slimseg[pnnx]'"
TIMEOUT_S = 300.0


def converted(graph: Graph, storage: Storage, why: str, timeout_s: float = TIMEOUT_S) -> tuple[str, bytes]:
    """(text of the `.param`, bytes of the `.bin`) of a graph; `why` it could not be written directly.

    Raises:
        Unsupported: pnnx is not installed, fails, takes longer than `timeout_s`, or writes what ncnn cannot run.
    """
    program = _program()
    if program is None:
        raise Unsupported(f"{why}: {INSTALL} to write it with pnnx")
    with scratch.folder() as folder:
        source = folder / "model.pt"
        try:
            _script(graph).save(str(source))
            _run(program, source, graph.input_shape, storage, timeout_s)
            found = file.read_layers(source.with_name("model.ncnn.param"))
            weights = source.with_name("model.ncnn.bin").read_bytes()
        except ModelError as error:
            raise Unsupported(f"{why}, and what pnnx writes for it cannot be read") from error
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            raise Unsupported(f"{why}, and pnnx cannot write it either: {one_line(error)}") from error
        foreign = sorted({layer.kind for layer in found if "." in layer.kind})
        if foreign:
            raise Unsupported(f"{why}, and pnnx writes layers that ncnn does not have: {', '.join(foreign[:3])}")
        return source.with_name("model.ncnn.param").read_text("ascii"), weights


def available() -> bool:
    """Whether pnnx is installed."""
    return _program() is not None


def _program() -> Path | None:
    """The converter itself: importing its package would load what it needs for other things."""
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        return None
    program = Path(found.submodule_search_locations[0]) / ("pnnx.exe" if sys.platform == "win32" else "pnnx")
    return program if program.is_file() else None


def _script(graph: Graph) -> torch.jit.ScriptModule:
    module = graph.copy().module
    for name, layer in list(module.named_children()):
        if isinstance(layer, ops.Slice):
            module.add_module(name, _Slice(layer))
    example = torch.zeros(graph.input_shape)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; pnnx reads nothing newer
        return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-any-return, no-untyped-call]


class _Slice(nn.Module):
    """A slice by indexing, which pnnx knows; it does not know `narrow`."""

    def __init__(self, layer: ops.Slice) -> None:
        super().__init__()
        self.index = (*[slice(None)] * layer.dim, slice(layer.start, layer.stop, layer.step))

    def forward(self, x: Tensor) -> Tensor:
        return x[self.index]


def _run(program: Path, source: Path, shape: tuple[int, ...], storage: Storage, timeout_s: float) -> None:
    """Raises: RuntimeError, OSError, SubprocessError."""
    sides = ",".join(map(str, shape))
    command = [str(program), source.name, f"inputshape=[{sides}]", f"fp16={int(storage == 'fp16')}"]
    try:
        done = subprocess.run(
            command, cwd=source.parent, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it did not end within {timeout_s:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"it ended with status {done.returncode} ({lines[-1]})")
