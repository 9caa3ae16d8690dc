"""Profiles of many kinds of files: nearly all time belongs to operators, and to the right ones; or one sentence."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import profile_zoo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slimseg
from slimseg.errors import ModelError, RuntimeFailure, SlimsegError
from slimseg.runtimes import child
from slimseg.runtimes.litert import file
from slimseg.runtimes.litert.attribution import attribute, partition
from slimseg.runtimes.litert.kernel_names import FOLDED, HELP, Kind, misfit
from slimseg.runtimes.litert.profiler import Measurement, profile
from slimseg.runtimes.litert.summary import Summary
from slimseg.runtimes.litert.trace import BUILTIN


def measured(path: Path) -> Measurement:
    result: Measurement = child.call("slimseg.runtimes.litert.profiler:measure", str(path), 1, 5, about=path)
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


@pytest.mark.parametrize("form", profile_zoo.FORMS)
@pytest.mark.parametrize("name", profile_zoo.NETWORKS)
def test_networks(name: str, form: str, tmp_path: Path) -> None:
    check(profile_zoo.network(name, form, tmp_path))


@pytest.mark.parametrize("name", profile_zoo.ODD)
def test_odd_files(name: str, tmp_path: Path) -> None:
    check(profile_zoo.ODD[name](tmp_path / f"{name}.tflite"))


def test_dynamic_range_converts_for_the_operator_that_reads(tmp_path: Path) -> None:
    path = profile_zoo.network("atrous", "dynamic", tmp_path)
    described, found = file.read(path), measured(path)
    owners = attribute(described.operators, found.trace.kernels)
    converting = {owner for kernel, owner in zip(found.trace.kernels, owners, strict=True) if "QDU8" in kernel.tag}
    assert converting
    assert {described.operators[owner].op for owner in converting if owner is not None} <= {"CONV_2D"}


def test_parts_are_those_of_the_runtime(tmp_path: Path) -> None:
    """Kernel numbers start again in every part: the partition we compute has as many parts as that happens."""
    path = profile_zoo.network("excite", "dynamic", tmp_path)
    described, trace = file.read(path), measured(path).trace
    builtin = {kernel.index for kernel in trace.kernels if kernel.type == BUILTIN}
    restarts = sum(kernel.type != BUILTIN and kernel.index == 0 for kernel in trace.kernels)
    assert builtin
    assert len(partition(described.operators, builtin)) == restarts > 1


def test_an_operator_without_a_kernel(tmp_path: Path) -> None:
    path = profile_zoo.unknown_operator(tmp_path / "own.tflite")
    with pytest.raises(ModelError, match="has the custom operator MyOperator"):
        profile(path, runs=3)


@pytest.mark.parametrize("size", [(1, 0, 64, 8), (1, -1, -1, 8)])
def test_an_input_without_a_size(size: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no fixed size"):
        profile(profile_zoo.resized(tmp_path / "dynamic.tflite", size), runs=3)


def test_tensors_larger_than_memory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="GB for the tensors of one operator"):
        profile(profile_zoo.resized(tmp_path / "huge.tflite", (1, 100_000, 100_000, 8)), runs=3)


def test_an_input_of_text(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds string values"):
        profile(profile_zoo.of_text(tmp_path / "text.tflite"), runs=3)


def test_a_users_file_that_litert_refuses_is_the_users(tmp_path: Path) -> None:
    path = profile_zoo.cycle(tmp_path / "cycle.tflite")
    with pytest.raises(RuntimeFailure, match="refused"):
        profile(path, runs=3)
    with pytest.raises(ModelError, match="refused"):
        slimseg.profile(path, runs=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 20), cut=st.floats(0, 1))
def test_damaged_files_are_read_or_refused(seed: int, flips: int, cut: float, tmp_path: Path) -> None:
    path = mutated(tmp_path, seed, flips, cut)
    with suppress(ModelError):
        file.read(path)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_crash_nothing_of_ours(seed: int, tmp_path: Path) -> None:
    path = mutated(tmp_path, seed, 3, 1.0)
    with suppress(SlimsegError):
        profile(path, runs=3, timeout_s=30, within=child.shared())


def mutated(folder: Path, seed: int, flips: int, cut: float) -> Path:
    """A good file with some bytes changed, mostly near its ends, where the structure lies."""
    chance = random.Random(seed)
    original = folder / "good.tflite"
    if not original.exists():
        profile_zoo.mediapipe(original)
    data = bytearray(original.read_bytes())
    for _ in range(flips):
        where = chance.choice((chance.randrange(len(data)), chance.randrange(2000), -1 - chance.randrange(2000)))
        data[where] = chance.randrange(256)
    path = folder / f"mutated{seed}.tflite"
    path.write_bytes(data[: 20 + int(cut * len(data))])
    return path
