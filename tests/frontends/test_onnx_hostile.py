"""Damaged and hostile ONNX files: one sentence within seconds, bounded memory, no crash."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, load, save
from onnx_files import node, weights, write
from onnx_zoo import export

from slimseg.errors import ModelError
from slimseg.frontends.onnx import from_file

SECONDS = 5.0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "real.onnx"
    export("mobilenet", path, 11)
    return path


def opens_or_says_why(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    start = time.process_time()
    try:
        said = from_file(path, (64, 96)).name
    except ModelError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 1000
    assert time.process_time() - start < SECONDS, "of the processor, so that other work on it does not count"


Flip = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
hostile = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@hostile
@given(flips=st.lists(Flip, min_size=1, max_size=12), from_front=st.booleans())
def test_flipped_bits(real: Path, tmp_path: Path, flips: list[tuple[float, int]], from_front: bool):
    """Over the whole file, or its first tenth, where the nodes and their attributes lie."""
    data = bytearray(real.read_bytes())
    reach = len(data) // 10 if from_front else len(data)
    for place, bit in flips:
        data[int(place * reach)] ^= 1 << bit
    opens_or_says_why(tmp_path / "flipped.onnx", bytes(data))


@hostile
@given(start=st.floats(0, 1), length=st.integers(0, 400), filling=st.binary(max_size=40))
def test_parts_replaced(real: Path, tmp_path: Path, start: float, length: int, filling: bytes):
    data = real.read_bytes()
    place = int(start * len(data))
    opens_or_says_why(tmp_path / "replaced.onnx", data[:place] + filling + data[place + length :])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated(real: Path, tmp_path: Path, share: float):
    data = real.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError):
        from_file(path, (64, 96))


@hostile
@given(data=st.binary(max_size=2000))
def test_random_bytes(tmp_path: Path, data: bytes):
    path = tmp_path / "random.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        from_file(path, (64, 96))


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def field(number: int, payload: bytes) -> bytes:
    """A delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def of_bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def of_nodes(*nodes: object, shape: tuple[int, ...] = (1, 4, 8, 8), **constants: np.ndarray) -> Callable[[Path], None]:
    return lambda path: write(path, nodes, constants, shape) and None


def false_header(path: Path) -> None:
    """A weight that claims to be a terabyte."""
    write(path, [node("Conv", "x w")], {"w": weights(4, 4, 3, 3)})
    model = load(path)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    save(model, path)


HUGE = ints(1 << 15, 1 << 15, 1 << 10)
BOMBS: dict[str, Callable[[Path], None]] = {
    "weight of a terabyte": false_header,
    "constant of a shape": of_nodes(node("ConstantOfShape", "s", "a"), node("Add", "x a"), s=HUGE),
    "constant expanded": of_nodes(node("Expand", "c s", "a"), node("Add", "x a"), c=weights(1), s=HUGE),
    "constant tiled": of_nodes(node("Tile", "c s", "a"), node("Add", "x a"), c=weights(1, 1, 1), s=HUGE),
    "constant broadcast": of_nodes(
        node("Mul", "a b", "c"), node("Add", "x c"), a=weights(1 << 16, 1), b=weights(1, 1 << 16)
    ),
    "range": of_nodes(
        node("Range", "a b c", "d"), node("Add", "x d"), a=np.int64(0), b=np.int64(1 << 40), c=np.int64(1)
    ),
    "gather": of_nodes(
        node("Gather", "a b", "c"), node("Gather", "c b", "d", axis=1), node("Add", "x d"),
        a=weights(2, 2, 1000), b=np.zeros(1 << 17, np.int64),
    ),
    "resized out of sight": of_nodes(node("Resize", "x _ _ s"), s=ints(1, 4, 1 << 40, 1 << 40)),
    "resized again and again": of_nodes(
        *(node("Resize", f"{'x' if i == 0 else f'v{i}'} _ s", f"v{i + 1}") for i in range(20)),
        node("Relu", "v20"), s=np.asarray([1, 1, 16, 16], np.float32),
    ),
    "padded out of sight": of_nodes(node("Pad", "x p"), p=ints(0, 0, 1 << 30, 0, 0, 0, 1 << 30, 0)),
    "concatenated with itself": of_nodes(
        *(node("Concat", f"{'x' if i == 0 else f'v{i}'} {'x' if i == 0 else f'v{i}'}", f"v{i + 1}", axis=1)
          for i in range(60)),
        node("Relu", "v60"),
    ),
    "one constant used by many": of_nodes(
        *(node("Add", f"{'x' if i == 0 else f'v{i}'} c", f"v{i + 1}") for i in range(300)), node("Relu", "v300"),
        shape=(1, 4, 1024, 1024), c=weights(4, 1024, 1024),
    ),
    "kernel without end": of_nodes(node("MaxPool", "x", kernel_shape=[1 << 40, 1 << 40], pads=[1 << 40] * 4)),
    "a million dimensions": of_nodes(node("Unsqueeze", "x a"), a=np.arange(4, 1 << 20)),
    "empty messages": of_bytes(field(7, b"\x0a\x00" * 600_000)),
    "empty attributes": of_bytes(field(7, field(1, b"\x2a\x00" * 600_000))),
    "numbers of one byte": of_bytes(field(7, field(5, field(7, b"\x01" * (80 << 20))))),
    "deep": of_bytes(
        field(7, field(1, functools.reduce(lambda inner, _: field(5, field(6, field(1, inner))), range(500), b"")))
    ),
    "zeros": of_bytes(bytes(1 << 20)),
}  # fmt: skip

RUN = """
import resource, sys, time
from pathlib import Path
from slimseg.errors import ModelError
from slimseg.frontends.onnx import from_file
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (4 << 30),) * 2)
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        from_file(Path(path))
        print(path, "was opened")
    except ModelError as error:
        if "allocate" in str(error) or "MemoryError" in str(error):
            print(path, error)
    if time.process_time() - start > 10:
        print(path, "took", time.process_time() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's own means")
def test_bombs_are_refused_in_bounded_memory(tmp_path: Path):
    paths = []
    for name, make in BOMBS.items():
        paths.append(tmp_path / f"{name.replace(' ', '_')}.onnx")
        make(paths[-1])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, *map(str, paths)], capture_output=True, text=True, timeout=1200
    )
    assert (result.stdout, result.returncode) == ("", 0), result.stderr[-2000:]


def test_words_of_a_file_cannot_command_a_terminal(tmp_path: Path):
    relu = node("Evil\x1b[2J", "x", node_name="n\x1b]0;owned\x07\nline two" + "x" * 5000)
    write(tmp_path / "words.onnx", [relu])
    with pytest.raises(ModelError) as caught:
        from_file(tmp_path / "words.onnx")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_graph_inside_a_node_is_named(tmp_path: Path):
    body = load(write(tmp_path / "body.onnx", [node("Relu", "x")])).graph
    path = write(tmp_path / "if.onnx", [node("If", "x", node_name="choice", then_branch=body, else_branch=body)])
    with pytest.raises(ModelError, match="If 'choice'"):
        from_file(path)


def test_a_type_that_is_no_number_is_refused(tmp_path: Path):
    path = write(tmp_path / "text.onnx", [node("Relu", "x")], kind=TensorProto.STRING)
    with pytest.raises(ModelError, match="not an image"):
        from_file(path)
