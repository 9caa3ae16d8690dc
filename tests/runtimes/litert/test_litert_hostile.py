"""Files that cannot be profiled: one sentence each, and nothing of ours crashes."""

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
from slimseg import memory_bounds
from slimseg.errors import ModelError, RuntimeFailure, SlimsegError
from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling.profiler import profile
from slimseg.tflite import file

DATA = Path(__file__).resolve().parents[2] / "data"


def test_an_operator_without_a_kernel(tmp_path: Path) -> None:
    path = profile_zoo.unknown_operator(tmp_path / "own.tflite")
    with pytest.raises(ModelError, match="has the custom operator MyOperator"):
        profile(path, runs=3)


@pytest.mark.parametrize("size", [(1, 0, 64, 8), (1, -1, -1, 8)])
def test_an_input_without_a_size(size: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no fixed size"):
        profile(profile_zoo.resized(tmp_path / "dynamic.tflite", size), runs=3)


def test_tensors_larger_than_any_network_has(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"480\.0 GB of memory for one image"):
        profile(profile_zoo.resized(tmp_path / "huge.tflite", (1, 100_000, 100_000, 8)), runs=3)


def test_tensors_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bounds, "spared_bytes", lambda: 1 << 18)
    with pytest.raises(ModelError, match="GB of memory for the tensors of one operator"):
        profile(profile_zoo.resized(tmp_path / "large.tflite", (1, 1000, 1000, 8)), runs=3)


def test_no_input(tmp_path: Path) -> None:
    path = tmp_path / "constant.tflite"
    model = file.parse((DATA / "gated_float.tflite").read_bytes(), path)
    model.subgraphs[0].inputs = np.zeros(0, np.int32)
    path.write_bytes(file.pack(model))
    with pytest.raises(ModelError, match=r"constant\.tflite has no input: give a network that takes an image"):
        profile(path, runs=3)


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
        profile(path, runs=3, timeout_s=300, within=child.shared())


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
