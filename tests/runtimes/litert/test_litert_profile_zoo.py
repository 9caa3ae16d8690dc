"""Profiles of many kinds of files: nearly all time belongs to operators, and to the right ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import profile_zoo
import pytest

from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling.attribution import attribute, partition
from slimseg.runtimes.litert.profiling.kernel_names import FOLDED, HELP, Kind, misfit
from slimseg.runtimes.litert.profiling.profiler import Measurement
from slimseg.runtimes.litert.profiling.summary import Summary
from slimseg.runtimes.litert.profiling.trace import BUILTIN
from slimseg.tflite import file


def measured(path: Path) -> Measurement:
    result: Measurement = child.call("slimseg.runtimes.litert.profiling.profiler:measure", str(path), 1, 5, about=path)
    return result


def check(path: Path) -> None:
    """At least 95 % attributed, each kernel to an operator that it fits, and no operator without one that needs one."""
    described, found = file.read(path), measured(path)
    kernels = found.trace.kernels
    owners = attribute(described.operators, kernels)
    for kernel, owner in zip(kernels, owners, strict=True):
        assert owner is not None, kernel
        operator = described.operators[owner]
        fits = misfit(Kind(operator.op, operator.activated, operator.tabular), kernel.tag) < HELP
        assert fits if kernel.type != BUILTIN else operator.op == kernel.tag, (operator.op, kernel)
    idle = {operator.op for operator in described.operators if operator.index not in owners and not operator.tabular}
    assert idle <= FOLDED
    gaps = [gap(path, found)]
    while gaps[-1] > 0.05 and len(gaps) < 3:  # tests share their machine
        gaps.append(gap(path, measured(path)))
    assert min(gaps) < 0.05


def gap(path: Path, found: Measurement) -> float:
    """Share of a run that no operator accounts for."""
    summary = Summary(file.read(path), found.trace, (), float(np.median(found.plain_ms)))
    return summary.unattributed_ms / summary.total_ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("form", profile_zoo.FORMS)
@pytest.mark.parametrize("name", profile_zoo.NETWORKS)
def test_networks(name: str, form: str, folder: Path) -> None:
    check(profile_zoo.network(name, form, folder))


@pytest.mark.parametrize("name", profile_zoo.ODD)
def test_odd_files(name: str, tmp_path: Path) -> None:
    check(profile_zoo.ODD[name](tmp_path / f"{name}.tflite"))


def test_dynamic_range_converts_for_the_operator_that_reads(folder: Path) -> None:
    path = profile_zoo.network("atrous", "dynamic", folder)
    described, found = file.read(path), measured(path)
    owners = attribute(described.operators, found.trace.kernels)
    integers = re.compile(r"Convert .*QDU?8")  # unsigned where the processor has such products
    converting = {
        owner for kernel, owner in zip(found.trace.kernels, owners, strict=True) if integers.match(kernel.tag)
    }
    assert converting
    assert {described.operators[owner].op for owner in converting if owner is not None} <= {"CONV_2D"}


def test_parts_are_those_of_the_runtime(folder: Path) -> None:
    """Kernel numbers start again in every part: the partition we compute has as many parts as that happens."""
    path = profile_zoo.network("excite", "dynamic", folder)
    described, trace = file.read(path), measured(path).trace
    builtin = {kernel.index for kernel in trace.kernels if kernel.type == BUILTIN}
    restarts = sum(kernel.type != BUILTIN and kernel.index == 0 for kernel in trace.kernels)
    assert builtin
    assert len(partition(described.operators, builtin)) == restarts > 1
