"""The runtimes and exporters. This file alone lists them; the suffix of a model file selects its runtime."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from slimseg.deployment import CPU, DEFAULT_RUNTIME, Deployment, Precision
from slimseg.disk import atomic
from slimseg.errors import ModelError, Unsupported, UserError
from slimseg.runtimes.coreml.runtime import COREML
from slimseg.runtimes.exporter import Exporter
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.runtimes.ncnn.runtime import NCNN
from slimseg.runtimes.onnxruntime.runtime import ONNXRUNTIME
from slimseg.runtimes.processor import Processor
from slimseg.runtimes.runtime import Runtime

_runtimes: dict[str, Runtime] = {runtime.name: runtime for runtime in (LITERT, NCNN, ONNXRUNTIME)}
RUNTIMES: Mapping[str, Runtime] = MappingProxyType(_runtimes)
_exporters: dict[str, Exporter] = {each.target: each for each in (LITERT, COREML, NCNN, ONNXRUNTIME)}
EXPORTERS: Mapping[str, Exporter] = MappingProxyType(_exporters)
DEFAULT = RUNTIMES[DEFAULT_RUNTIME]


def register(runtime: Runtime) -> None:
    """Add a runtime of your own: every command accepts its name from then on.

    Raises:
        ValueError: its name, its target or the suffix of its files is in use.
    """
    if runtime.name in _runtimes or runtime.target in _exporters:
        raise ValueError(f"a runtime {runtime.name!r} or a target {runtime.target!r} already exists")
    for other in _exporters.values():
        if runtime.suffix == other.suffix:
            raise ValueError(
                f"{runtime.name} cannot have the suffix {runtime.suffix}: files with it belong to {other.brand}"
            )
    _runtimes[runtime.name] = _exporters[runtime.target] = runtime


def unregister(name: str) -> None:
    """Remove a registered runtime.

    Raises:
        KeyError: there is no runtime of that name.
    """
    del _exporters[_runtimes.pop(name).target]


def known(name: str) -> Runtime:
    """The runtime of a name, whether it is installed or not.

    Raises:
        UserError: there is no runtime of that name.
    """
    if name not in _runtimes:
        raise UserError(f"`runtime` {name!r} must be one of {', '.join(_runtimes)}")
    return _runtimes[name]


def named(name: str) -> Runtime:
    """The runtime of a name, if it is installed.

    Raises:
        UserError: there is no runtime of that name, or it is not installed.
    """
    runtime = known(name)
    if how := runtime.missing():
        raise UserError(f"the {runtime.brand} package is not installed: {how}")
    return runtime


def deployment(
    runtime: str | None = None, precision: str | None = None, threads: int = 1, processor: str = CPU
) -> Deployment:
    """The deployment for a user's choice of options; the runtime need not be installed.

    Args:
        runtime: a runtime's name; `DEFAULT_RUNTIME` if None.
        precision: one of the runtime's precisions; that of its float networks if None.
        threads: number of threads of the runtime.
        processor: processors that have to take the file, separated by commas; files are timed on the CPU.

    Raises:
        UserError: there is no such runtime, or it does not have that precision or processor.
    """
    its = known(runtime or DEFAULT_RUNTIME)
    others = tuple(each.name for each in processors(its, processor))
    return Deployment(its.name, _precision(its, precision), CPU, others, threads=threads)


def others(deployment: Deployment) -> tuple[Processor, ...]:
    """The processors beside the CPU that have to take the file.

    Raises:
        UserError: the runtime has no such processor.
    """
    return processors(known(deployment.runtime), ",".join(deployment.others))


def _precision(runtime: Runtime, asked: str | None) -> Precision:
    if asked is None:
        return runtime.float_precision
    for precision in runtime.precisions:
        if precision == asked:
            return precision
    raise UserError(f"`precision` {asked!r} must be one that {runtime.brand} has: {' or '.join(runtime.precisions)}")


def processors(runtime: Runtime, text: str, driver: Path | None = None) -> tuple[Processor, ...]:
    """The processors beside the CPU that a user named, such as "cpu,gpu,npu:sm8750"; empty for "cpu".

    Args:
        driver: the Vulkan driver that GPUs are asked on; None for one that is found.

    Raises:
        UserError: the runtime has no such processor, or one is named twice.
    """
    known = {each.name: each for each in runtime.processors()}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name != CPU and name not in known:
            raise UserError(f"`processor` {name!r} must be one that {runtime.brand} has: {', '.join((CPU, *known))}")
        if names.count(name) > 1:
            raise UserError(f"`processor` names {name} twice")
    chosen = (known[name] for name in names if name != CPU)
    return tuple(each if driver is None else each.with_driver(driver) for each in chosen)


def of(path: str | Path) -> Runtime:
    """The runtime of a model file, by its suffix.

    Raises:
        ModelError: no runtime has files with this suffix.
    """
    suffix = Path(path).suffix.lower()
    for runtime in _runtimes.values():
        if suffix == runtime.suffix:
            return runtime
    suffixes = " or ".join(f"a {runtime.suffix}" for runtime in _runtimes.values())
    raise ModelError(f"{path} is not a file that a runtime can run: give {suffixes}")


def running(path: Path) -> Runtime:
    """The runtime that can run an exporter's file on this machine.

    Raises:
        Unsupported: no runtime on this machine can run it; the message states why.
    """
    for exporter in _exporters.values():
        if path.suffix.lower() == exporter.suffix:
            if not isinstance(exporter, Runtime):
                raise Unsupported(f"{path.name} cannot run here: {exporter.unrun}")
            if how := exporter.missing():
                raise Unsupported(f"{path.name} cannot run here, because {exporter.brand} is not installed: {how}")
            if why := exporter.unrun_file(path):
                raise Unsupported(f"{path.name} cannot run here: {why}")
            return exporter
    raise Unsupported(f"{path.name} cannot run here: no runtime runs files with suffix {path.suffix}")


def runs_unchanged(path: str | Path, runtime: str | None = None) -> bool:
    """Whether a user's file is run as it is; any other is a network to be opened.

    Args:
        runtime: the runtime that the user named; None if none was. Files that are usually brought as networks are run
            as they are only if their runtime is named (`Runtime.only_if_named`).
    """
    suffix = Path(path).suffix.lower()
    its = next((each for each in _runtimes.values() if each.suffix == suffix), None)
    return its is not None and (runtime == its.name or (runtime is None and not its.only_if_named))


def size_bytes(path: Path) -> int:
    """Total size in bytes of all files of a network.

    Raises:
        ModelError: no runtime has files with this suffix.
    """
    return sum(each.stat().st_size for each in of(path).files(path))


def copy(source: Path, target: Path) -> None:
    """Copy all files of a network to another name; each is replaced in one step, the main file last."""
    pairs = list(zip(of(source).files(source), of(target).files(target), strict=True))
    for old, new in reversed(pairs):
        with old.open("rb") as stream, atomic.replacing(new) as copied:
            shutil.copyfileobj(stream, copied)
