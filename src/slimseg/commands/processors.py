"""`slimseg processors`: which processors can be asked on this machine, and what to install for the others."""

from __future__ import annotations

from pathlib import Path

from slimseg.results import ProcessorState, ProcessorStates
from slimseg.runtimes import registry
from slimseg.runtimes.processor import Processor
from slimseg.runtimes.runtime import Runtime


def processors(*, driver: Path | None = None) -> ProcessorStates:
    """The state of every processor of every runtime, the CPU first.

    Args:
        driver: a Vulkan driver to ask GPUs on; None for one that is found.

    Raises:
        UserError: the driver is missing or does not work.
    """
    found = []
    for runtime in registry.RUNTIMES.values():
        found.append(_cpu(runtime))
        for each in runtime.processors():
            found.append(_state(runtime, each if driver is None else each.with_driver(driver)))
    return ProcessorStates(tuple(found))


def _cpu(runtime: Runtime) -> ProcessorState:
    missing = runtime.missing()
    here = "" if missing else "this machine"
    return ProcessorState(runtime.name, "cpu", runtime.title, here, not missing, not missing, missing)


def _state(runtime: Runtime, processor: Processor) -> ProcessorState:
    answers = processor.answers()
    return ProcessorState(
        runtime=runtime.name,
        name=processor.name,
        title=processor.title,
        answers=answers,
        computes=processor.computes,
        timed=processor.is_timed,
        install="" if answers else processor.missing(),
    )
