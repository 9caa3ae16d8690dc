"""Every value of an ONNX file has one maker, and no operators wait for each other: as onnxruntime has it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_files import difference, node, weights, write

from slimseg.errors import ModelError, UnknownOperator
from slimseg.frontends.onnx import from_file

WEIGHTS = {"w": np.full((1, 4, 1, 1), 2, np.float32)}
CIRCLES = {
    "its own result": ([node("Relu", "y", "y")], "the operator Relu 'y' reads its own result"),
    "its own result and the image": ([node("Add", "x y", "y")], "the operator Add 'y' reads its own result"),
    "two": ([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")], "'a'"),
    "two that nothing needs": ([node("Relu", "x"), node("Relu", "b", "a"), node("Relu", "a", "b")], "in a circle"),
    "one that nothing needs": ([node("Relu", "x"), node("Relu", "a", "a")], "Relu 'a' reads its own result"),
    "of constants": ([node("Add", "w d", "c"), node("Relu", "c", "d"), node("Add", "x d")], "Relu 'd'"),
    "many": (
        [*(node("Relu", f"v{(n - 1) % 90}", f"v{n}") for n in range(90)), node("Add", "x v7")],
        "and 87 more read each other's results in a circle",
    ),
}
TWICE = {
    "made of itself": (
        [node("Relu", "x"), node("Identity", "y", "y")],
        "Identity 'y' computes the value 'y', which is computed by Relu",
    ),
    "before it is read": ([node("Relu", "x", "b"), node("Sigmoid", "x", "b"), node("Tanh", "b")], "'b'"),
    "after it is read": ([node("Relu", "x", "b"), node("Tanh", "b"), node("Sigmoid", "x", "b")], "'b'"),
    "by one operator": (
        [node("Split", "x", "b b", axis=1), node("Relu", "b")],
        "which is computed by Split 'b' already",
    ),
    "though nothing reads it": ([node("Relu", "x"), node("Sigmoid", "x", "b"), node("Tanh", "x", "b")], "'b'"),
    "the image": ([node("Relu", "x", "x"), node("Relu", "x")], "which is an input or a constant already"),
    "the image alone": ([node("Relu", "x", "x"), node("Relu", "x", "x")], "'x'"),
    "a constant": ([node("Relu", "x", "w"), node("Add", "x w")], "which is an input or a constant already"),
}
MISSING = {
    "read": ([node("Add", "x q")], "Add 'y' reads the value 'q', which nothing computes"),
    "read by what nothing needs": ([node("Relu", "x"), node("Relu", "q", "z")], "Relu 'z' reads the value 'q'"),
}


def runtime_opens(path: Path) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(path, options)
    except Exception:
        return False
    return True


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        from_file(path)
    said = str(refused.value)
    assert said.count(str(path)) == 1
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("nodes", "said"),
    [pytest.param(*case, id=name) for cases in (CIRCLES, TWICE, MISSING) for name, case in cases.items()],
)
def test_what_onnxruntime_refuses_is_refused(nodes: Sequence[Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", nodes, WEIGHTS)
    assert not runtime_opens(path)
    assert said in refusal(path)


def layers() -> list[Any]:
    """Two branches with weights, and a slice whose bounds are worked out from a shape."""
    return [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1], node_name="stem"),
        node("Sigmoid", "a", "gate"),
        node("Mul", "a gate", "b"),
        node("Shape", "b", "shape"),
        node("Slice", "shape two four", "size"),
        node("Slice", "b zeros size axes", "whole"),
        node("Add", "whole w", "c"),
        node("Conv", "c k", "d", pads=[1, 1, 1, 1], node_name="head"),
        node("Add", "d x", "y"),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_operators_in_any_order_are_the_same_network(seed: int, tmp_path: Path) -> None:
    shuffled = layers()
    random.Random(seed).shuffle(shuffled)
    ints = {name: np.asarray(value, np.int64) for name, value in
            {"two": [2], "four": [4], "zeros": [0, 0], "axes": [2, 3]}.items()}  # fmt: skip
    constants = {**WEIGHTS, **ints, "k": weights(4, 4, 3, 3) / 10}
    paths = [write(tmp_path / f"{number}.onnx", each, constants) for number, each in enumerate((layers(), shuffled))]
    graphs = [from_file(path) for path in paths]
    assert difference(paths[1], graphs[1]) < 1e-5
    assert {layer.name for layer in graphs[0].layers()} == {layer.name for layer in graphs[1].layers()}


def test_one_name_for_several_operators_is_no_mistake(tmp_path: Path) -> None:
    """Names of operators are for people; values are told apart by theirs."""
    nodes = [node("Relu", "x", "a", node_name="n"), node("Sigmoid", "a", "y", node_name="n")]
    assert len(list(from_file(write(tmp_path / "m.onnx", nodes)).layers())) == 2


@pytest.mark.parametrize("twice", ["initializer", "output"])
def test_lists_that_say_a_thing_twice(twice: str, tmp_path: Path) -> None:
    """The later of two constants of one name counts, as for onnxruntime."""
    path = write(tmp_path / "m.onnx", [node("Mul", "x w")], WEIGHTS)
    model = onnx.load(path)
    if twice == "initializer":
        model.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, 4, 1, 1], [1, 2, 3, 4]))
    else:
        model.graph.output.append(model.graph.output[0])
    onnx.save(model, path)
    assert difference(path) < 1e-6


def test_a_constant_may_be_listed_as_an_input(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [node("Mul", "x w")], WEIGHTS)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1, 4, 1, 1]))
    onnx.save(model, path)
    assert difference(path) < 1e-6


def test_a_result_that_cannot_be_rebuilt_is_named(tmp_path: Path) -> None:
    nodes = [node("Dropout", "x", "a mask"), node("Cast", "mask", "m", to=1), node("Add", "a m")]
    with pytest.raises(UnknownOperator, match="reads 'mask', which is not the first result of its operator"):
        from_file(write(tmp_path / "m.onnx", nodes))


def test_what_is_too_large_says_which_limit_it_meets(tmp_path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(6100)), "y"]
    nodes = [node("Relu", *each) for each in pairwise(names)]
    assert "becomes more than the 6000 layers that slimseg opens" in refusal(write(tmp_path / "m.onnx", nodes))
    nodes = [node("Unsqueeze", "x axes")]
    path = write(tmp_path / "d.onnx", nodes, {"axes": np.arange(4, 9, dtype=np.int64)})
    assert "outputs 9 dimensions, more than the 8 that slimseg opens" in refusal(path)
