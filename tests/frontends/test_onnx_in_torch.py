"""ONNX operators that are no layer: opened through functions in torch, compared with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_files import difference, kinds, node, weights, write

from slimseg.errors import UnknownOperator
from slimseg.frontends.onnx import from_file


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


MEAN = node("ReduceMean", "x", "m", axes=[1], keepdims=1)  # one channel
HALF = {"h": number(0.5)}
Case = tuple[list[Any], dict[str, np.ndarray]]
CASES: dict[str, Case] = {
    "Expand": ([MEAN, node("Expand", "m s")], {"s": ints(1, 4, 1, 1)}),
    "Tile": ([node("Tile", "x r")], {"r": ints(1, 2, 1, 2)}),
    "Gather": ([node("Gather", "x i", axis=3)], {"i": ints(5, 1, 1, 7)}),
    "Gather of two dimensions": ([node("Gather", "x i", axis=1)], {"i": np.asarray([[3, 0], [1, 1]])}),
    "GatherND": (
        [node("Transpose", "x", "t", perm=[2, 3, 0, 1]), node("GatherND", "t i", "g"),
         node("Transpose", "g", perm=[2, 3, 0, 1])],
        {"i": np.stack(np.meshgrid([6, 0, 2], [7, 5, 3, 1], indexing="ij"), -1)},
    ),
    "ScatterND": (
        [node("Relu", "x", "r"), node("Slice", "r a b", "s"), node("ScatterND", "x i s")],
        {"a": ints(0, 0, 2, 1), "b": ints(1, 4, 5, 8), "i": np.stack(np.indices((1, 4, 3, 7)), -1) + ints(0, 0, 4, 1)},
    ),
    "Slice backwards": ([node("Slice", "x a b c d")], {"a": ints(7), "b": ints(-100), "c": ints(3), "d": ints(-2)}),
    "wide edge": ([node("Pad", "x p", mode="edge")], {"p": ints(0, 0, 9, 0, 0, 0, 0, 0)}),
    "Einsum": (
        [node("Einsum", "x x", "e", equation="nchw,ndhw->ncd"), node("Reshape", "e s")], {"s": ints(1, 4, 4, 1)},
    ),
    "Einsum with a constant": ([node("Einsum", "x w", equation="nchw,cd->ndhw")], {"w": weights(4, 3)}),
    "Pow": ([node("Abs", "x", "a"), node("Pow", "a p")], {"p": number(1.5)}),
    "power of a number": ([node("Pow", "p x")], {"p": number(1.5)}),
    "CumSum": ([node("CumSum", "x d", reverse=1)], {"d": np.asarray(1)}),
    "Where": ([node("Greater", "x h", "c"), node("Where", "c x h")], HALF),
    "Equal": ([node("Sign", "x", "s"), node("Equal", "s h", "c"), node("Where", "c x s")], {"h": number(1.0)}),
    "Less, Not, And, Or": (
        [node("Less", "x h", "a"), node("Not", "a", "n"), node("And", "a n", "b"), node("Or", "a b", "c"),
         node("Where", "c x h")], HALF,
    ),
    "Ceil": ([node("Ceil", "x")], {}),
    "Reciprocal": ([node("Abs", "x", "a"), node("Add", "a h", "b"), node("Reciprocal", "b")], HALF),
    "number over value": ([node("Abs", "x", "a"), node("Add", "a h", "b"), node("Div", "h b")], HALF),
    "mean over everything": ([node("ReduceMean", "x", "m", keepdims=0), node("Sub", "x m")], {}),
    "ReduceL1": ([node("ReduceL1", "x", axes=[1])], {}),
    "ReduceL2": ([node("ReduceL2", "x", axes=[2, 3])], {}),
    "ReduceSumSquare": ([node("ReduceSumSquare", "x", axes=[-1])], {}),
    "ReduceLogSumExp": ([node("ReduceLogSumExp", "x", axes=[1])], {}),
    "LpNormalization": ([node("LpNormalization", "x", axis=1)], {}),
    "Celu": ([node("Celu", "x", alpha=2.0)], {}),
    "Celu as Elu": ([node("Celu", "x")], {}),
    "Selu": ([node("Selu", "x")], {}),
    "Softsign": ([node("Softsign", "x")], {}),
    "Shrink": ([node("Shrink", "x", lambd=0.4, bias=0.1)], {}),
    "ThresholdedRelu": ([node("ThresholdedRelu", "x", alpha=0.3)], {}),
    "Col2Im": (
        [node("Reshape", "x s", "c"), node("Col2Im", "c i w", pads=[1, 1, 1, 1])],
        {"s": ints(1, 4, 64), "i": ints(7, 7), "w": ints(2, 2)},
    ),
    "layers of constants": (
        [node("Sin", "t", "a"), node("Conv", "a w", "b"), node("LeakyRelu", "b", "c"), node("Add", "x c")],
        {"t": weights(1, 2, 8, 8), "w": weights(4, 2, 1, 1)},
    ),
}  # fmt: skip
OPSETS = {"Col2Im": 18}


@pytest.mark.parametrize("name", CASES)
def test_operator_equals_onnxruntime(name: str, tmp_path: Path) -> None:
    nodes, constants = CASES[name]
    path = write(tmp_path / "operator.onnx", nodes, constants, opset=OPSETS.get(name, 13))
    assert difference(path, from_file(path)) < 3e-5


def test_uneven_adaptive_pooling_is_one_layer(tmp_path: Path) -> None:
    """Windows of 2 pixels from the pixels 0, 1, 2, 4, 5 and 6, as PyTorch's new exporter writes 6x6 of 8x8."""
    rows = np.asarray([0, 1, 2, 4, 5, 6])[:, None] + np.arange(2)
    index = np.stack(np.broadcast_arrays(rows[:, :, None, None], rows), -1)
    nodes = [
        *(node("Transpose", "x", "t", perm=[2, 3, 0, 1]), node("GatherND", "t i", "g")),
        *(node("Transpose", "g", "w", perm=[4, 5, 0, 1, 2, 3]), node("ReduceMean", "w", axes=[3, 5], keepdims=0)),
    ]
    path = write(tmp_path / "pool.onnx", nodes, {"i": index})
    assert kinds(from_file(path)) == ["AdaptiveAvgPool2d"]
    assert difference(path) < 3e-5


@pytest.mark.parametrize("taken", ["then", "else"])
def test_a_branch_that_is_always_taken(taken: str, tmp_path: Path) -> None:
    """Both branches call their values by the same names, and read a value that is made outside."""

    def branch(op: str) -> Any:
        made = helper.make_tensor_value_info("b", 1, None)
        return helper.make_graph([node(op, "r", "a"), node("Neg", "a", "b")], op, [], [made])

    choice = node("If", "c", then_branch=branch("Exp"), else_branch=branch("Sigmoid"))
    path = write(tmp_path / "if.onnx", [node("Relu", "x", "r"), choice], {"c": np.asarray(taken == "then")})
    assert kinds(from_file(path)) == ["ReLU", "Unary" if taken == "then" else "Sigmoid", "Unary"]
    assert difference(path) < 3e-5


def test_what_no_function_holds_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "two.onnx", [node("Tile", "x r", node_name="t1")], {"r": ints(1, 40, 1, 1)})
    with pytest.raises(UnknownOperator, match=r"Tile 't1'.*too many copies"):
        from_file(path)
