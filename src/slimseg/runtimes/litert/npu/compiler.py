"""Asks LiteRT's compiler plugin for Qualcomm which operators of a `.tflite` an NPU takes, and compiles the file for it.

What it takes is read from the file that it writes, in which other operators take the place of each part for the NPU.
Why it refuses an operator, and what compiling gave, is read from messages for people:

    LiteRT Op #3 'Cumsum' (code=128) is not supported      the plugin's verdict on one operator
    QNN op validation failed: 'Conv2d_2' (type=Conv2d)     before it: the operation of Qualcomm's that was refused
    [ ERROR ] <E> The SocModel doesn't support FP16        the library's reason, before its own line about Conv2d_2
    Partitioned subgraph<0>, selected 5 ops, from a total of 6 ops. resulted in 2 partitions.
    Serialized a context bin of size (bytes): 1880064      the compiled network
    spill_bytes=0 fill_bytes=0 write_total_bytes=1048576 read_total_bytes=5052416      its traffic with main memory
    finalize_runlist: in_runlist=3670                      its operations, after all rewriting
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure, Unsupported, UserError
from slimseg.results.placement import Compilation
from slimseg.runtimes.litert.npu import libraries, tool
from slimseg.runtimes.litert.npu.socs import Soc
from slimseg.tflite import file

_PARTITIONED = re.compile(r"Partitioned subgraph<0>, selected (\d+) ops, from a total of (\d+) ops. resulted in (\d+)")
PART = "DISPATCH_OP"  # the custom operator that stands for a part of the network that the NPU runs
_REFUSED = re.compile(r"LiteRT Op #(\d+) '([^']*)' \(code=\d+\) is not supported")
_INVALID = re.compile(r"QNN op validation failed: '([^']*)' \(type=([^)]*)\)")
_WHY = re.compile(r"\[ ERROR \]\s*(?:<E>)?\s*(.*)")
_ABOUT = re.compile(r"Failed to validate op (\S+) with error")
_STATUS = re.compile(r"validateOpConfig failed|validateNativeOps|Op specific validation failed")  # no reasons
_VERBOSE = "--qualcomm_log_level=verbose"  # without it, some reasons are missing
_CONTEXT = re.compile(r"Serialized a context bin of size \(bytes\): (\d+)")
_TRAFFIC = re.compile(r"\b(spill_bytes|fill_bytes|write_total_bytes|read_total_bytes)=(\d+)")
_RUN_LIST = re.compile(r"finalize_runlist: in_runlist=(\d+)")


@dataclass(frozen=True)
class Partition:
    """The plugin's verdict on a file."""

    refused: dict[int, str]  # number of an operator in the file, and why it is not taken
    parts: int  # parts of the network that the NPU runs


def installed() -> libraries.Libraries:
    """Where the compiler is. Raises: UserError, if it is not installed."""
    if found := libraries.find():
        return found
    raise UserError(f"Qualcomm's compiler cannot be asked: {libraries.missing()}")


def partition(path: Path, soc: Soc) -> Partition:
    """Ask which operators an NPU takes; a quarter of a second.

    Raises:
        ModelError: the file is damaged.
        UserError: the compiler is not installed.
        RuntimeFailure: it crashed or refuses the file.
    """
    described, model = file.opened(path)
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = str(index).encode()  # by which its operators are found again
    with scratch.folder() as folder:
        numbered, out = folder / path.name, folder / "parts.tflite"
        numbered.write_bytes(file.pack(model))
        printed = tool.run(installed(), "partition", numbered, soc.name, out)
        if printed.status or not out.exists():
            raise RuntimeFailure(
                f"{path.name}: Qualcomm's compiler does not accept the file for {soc.name}{tool.last_error(printed)}"
            )
        main = file.parse(out.read_bytes(), out)
        names, parts = _left(main)
        if names:
            printed = tool.run(installed(), "partition", numbered, soc.name, out, _VERBOSE)
    reasons = _refused(printed)
    return Partition(
        {
            each.index: reasons.get(each.index, f"LiteRT's plugin has no translation of {each.op}")
            for each in described.operators
            if str(each.outputs[0]) in names
        },
        parts,
    )


def _left(model: Any) -> tuple[set[str], int]:
    """First results of the operators that a partitioned file leaves to the CPU, and its number of parts for the NPU."""
    graph, names, parts = model.subgraphs[0], set(), 0
    for operator in graph.operators or []:
        if model.operatorCodes[operator.opcodeIndex].customCode == PART.encode():
            parts += 1
        else:
            names.add(graph.tensors[int(operator.outputs[0])].name.decode(errors="replace"))
    return names, parts


def compiled(path: Path, soc: Soc, out: Path, timeout_s: float = tool.LONGEST_S) -> Compilation:
    """Compile a file for a chip: `out` is a `.tflite` with the compiled network in place of the operators it takes.

    Raises:
        ModelError: the file is damaged.
        UserError: the compiler is not installed.
        Unsupported: the NPU takes no operator of the file.
        RuntimeFailure: it crashed, refused the file or ran out of time.
    """
    file.read(path)
    printed = tool.run(installed(), "apply", path, soc.name, out, timeout_s=timeout_s)
    found = _PARTITIONED.search(printed.err)
    if found and not int(found[1]):
        raise Unsupported(f"{path.name}: the NPU of {soc.name} takes none of its {found[2]} operators")
    contexts = [int(size) for size in _CONTEXT.findall(printed.err)]
    if printed.status or not contexts or not out.exists():
        raise RuntimeFailure(
            f"{path.name}: Qualcomm's compiler fails for {soc.name} (exit status {printed.status})"
            f"{tool.last_error(printed)}"
        )
    traffic: dict[str, int] = {}
    for name, value in _TRAFFIC.findall(printed.out):
        traffic[name] = traffic.get(name, 0) + int(value)
    operations = [int(count) for count in _RUN_LIST.findall(printed.out)]
    return Compilation(
        compile_s=printed.seconds,
        context_bytes=sum(contexts),
        operators=sum(operations) if operations else None,
        ddr_read_bytes=traffic.get("read_total_bytes"),
        ddr_write_bytes=traffic.get("write_total_bytes"),
        spill_bytes=traffic.get("spill_bytes"),
        fill_bytes=traffic.get("fill_bytes"),
    )


def _refused(printed: tool.Printed) -> dict[int, str]:
    """By number of a refused operator, why: in the library's words where it gives a reason."""
    reasons = _reasons(printed.out)
    refused: dict[int, str] = {}
    invalid: list[tuple[str, str]] = []
    for line in printed.err.splitlines():
        if found := _INVALID.search(line):
            invalid.append((found[1], found[2]))
        elif found := _REFUSED.search(line):
            refused[int(found[1])] = _reason(found[2], invalid, reasons)
            invalid = []
    return refused


def _reason(op: str, invalid: list[tuple[str, str]], reasons: dict[str, str]) -> str:
    if not invalid:
        return f"LiteRT's plugin has no translation of {op} in this form"
    name, kind = invalid[0]
    said = reasons.get(name)
    return f"{kind}: {said}" if said else f"the library refuses its {kind}"


def _reasons(out: str) -> dict[str, str]:
    """By name of one of the library's operations, the errors before the line that says that it is not valid."""
    found: dict[str, str] = {}
    said: list[str] = []
    for line in out.splitlines():
        error = _WHY.search(line)
        if not error:
            continue
        if about := _ABOUT.search(line):
            found[about[1]] = "; ".join(dict.fromkeys(said))
            said = []
        elif not _STATUS.search(line):
            said.append(error[1].strip())
    return found
