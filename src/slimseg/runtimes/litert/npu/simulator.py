"""Runs a `.tflite` as an NPU of Qualcomm's computes it, on this machine.

LiteRT's plugin translates the network for Qualcomm's compiler, as it does for a phone; the compiler's library then runs
it here, in a child process of its own, with the NPU's arithmetic. Its times are those of the simulation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimseg.disk import scratch
from slimseg.errors import DataError, RuntimeFailure, Unsupported
from slimseg.runtimes import child
from slimseg.runtimes.kept import Kept
from slimseg.runtimes.litert.npu import compiler, tool
from slimseg.runtimes.litert.npu.socs import Soc
from slimseg.tflite import file

if TYPE_CHECKING:
    from slimseg.runtimes.litert.npu.qnn import Network

PURPOSE = "npu"  # a child process of its own: the library loads threads and settings that only it needs
_CHUNK_BYTES = 64 << 20  # most bytes of inputs or outputs per message to the child
_KEPT = 4  # networks that the child keeps, compiled


def predict(path: Path, inputs: NDArray[Any], soc: Soc, timeout_s: float | None = None) -> NDArray[Any]:
    """Outputs (N, ...) for inputs (N, height, width, channels), both in the file's own types.

    Args:
        timeout_s: seconds after which the child is killed, for each chunk of inputs; None waits for ever.

    Raises:
        ModelError: the file is damaged.
        UserError: the simulator is not installed.
        DataError: `inputs` do not fit the file.
        Unsupported: the NPU does not take the whole network.
        RuntimeFailure: the simulator refused the network, crashed or ran out of time.
    """
    described = file.read(path)
    given, result = described.inputs[0], described.outputs[0]
    if inputs.ndim != 4 or inputs.shape[1:] != given.shape[1:]:
        raise DataError(f"{path} needs inputs of shape (N, *{given.shape[1:]}), not {inputs.shape}")
    if not len(inputs):
        return np.zeros((0, *result.shape[1:]), result.dtype)
    step = max(1, _CHUNK_BYTES // (8 * max(int(np.prod(given.shape)), int(np.prod(result.shape)))))
    with scratch.folder() as folder:
        arguments = str(compiler.installed().folder), translated(path, soc, folder), _key(path, soc), soc
        parts = [
            child.shared(PURPOSE).call(
                f"{__name__}:run", *arguments, inputs[at : at + step], timeout_s=timeout_s, about=path
            )
            for at in range(0, len(inputs), step)
        ]
    return np.concatenate(parts).reshape(len(inputs), *result.shape[1:])


def estimate(path: Path, soc: Soc, timeout_s: float | None = None) -> dict[str, int]:
    """What the compiler reports on the network, by its own names; its estimates only for chips that it estimates.

    Raises: as `predict`.
    """
    with scratch.folder() as folder:
        arguments = str(compiler.installed().folder), translated(path, soc, folder), _key(path, soc), soc
        found: dict[str, int] = child.shared(PURPOSE).call(
            f"{__name__}:report", *arguments, timeout_s=timeout_s, about=path
        )
    return found


def translated(path: Path, soc: Soc, folder: Path, *options: str) -> str:
    """The network as LiteRT's plugin hands it to Qualcomm's compiler, as a file in `folder`."""
    refused = compiler.partition(path, soc).refused
    if refused:
        operators = file.operators(path)
        first = min(refused)
        raise Unsupported(
            f"{path.name}: the NPU of {soc.name} cannot be simulated, because it does not take the whole network: "
            f"{len(refused)} of {len(operators)} operators stay on the CPU, the first of them "
            f"{operators[first].op} ({operators[first].name}): {refused[first]}"
        )
    out = folder / "translated.tflite"
    printed = tool.run(
        compiler.installed(), "apply", path, soc.name, out, f"--qualcomm_dlc_dir={folder.absolute()}", *options
    )
    written = sorted(folder.glob("*.dlc"))
    if len(written) != 1:
        raise RuntimeFailure(
            f"{path.name}: LiteRT's plugin wrote {len(written)} networks for the simulator, not one"
            f"{tool.last_error(printed)}"
        )
    return str(written[0])


def _key(path: Path, soc: Soc) -> tuple[str, int, int, str]:
    stat = file.stat(path)
    return str(path.absolute()), stat.st_mtime_ns, stat.st_size, soc.name


_loaded: Kept[Network] = Kept(_KEPT, lambda network: network.close())


def _network(folder: str, dlc: str, key: tuple[str, int, int, str], soc: Soc) -> Network:
    """A compiled network, kept from an earlier call if its file has not changed since. Runs in the child."""
    from slimseg.runtimes.litert.npu.qnn import Network

    return _loaded.get(key, lambda: Network(Path(folder), Path(dlc), soc.number, soc.takes_floats))


def run(folder: str, dlc: str, key: tuple[str, int, int, str], soc: Soc, inputs: NDArray[Any]) -> NDArray[Any]:
    """First outputs for each of `inputs` (N, ...), stacked. Runs in the child."""
    network = _network(folder, dlc, key, soc)
    return np.stack([network.run(value)[0].value for value in inputs])


def report(folder: str, dlc: str, key: tuple[str, int, int, str], soc: Soc) -> dict[str, int]:
    """`Network.events`. Runs in the child."""
    return _network(folder, dlc, key, soc).events()
