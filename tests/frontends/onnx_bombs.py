"""Small `.onnx` files that ask for far more work or memory than they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save
from onnx_files import node, write


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def chain(op: str, start: str, count: int, extra: str = "", **attributes: Any) -> list[Any]:
    """`count` nodes of one operator, each on what the one before gives: v0, v1, ..."""
    names = [start, *(f"v{number}" for number in range(count))]
    return [node(op, f"{before} {extra}", after, **attributes) for before, after in pairwise(names)]


def of(nodes: Iterable[Any], shape: tuple[int, ...] = (1, 4, 8, 8), **constants: np.ndarray) -> Callable[[Path], None]:
    return lambda path: write(path, list(nodes), constants, shape) and None


def one_region_for_all(path: Path) -> None:
    """500 weights lie at the same place of a file of 8 MB."""
    (path.parent / "values.bin").write_bytes(bytes(8 << 20))
    tensors = []
    for number in range(500):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[2 << 20])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="values.bin")
        tensors.append(tensor)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node("Relu", "x")], "g", [image], [output], tensors)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def one_weight_for_all(path: Path) -> None:
    """900 convolutions of 4 MB each share one weight, with settings that keep them apart."""
    names = ["x", *(f"v{number}" for number in range(900))]
    nodes = [
        node("Conv", f"{before} w", after, pads=[number % 30, 0, 0, 0], strides=[1, 1], node_name=f"n{number}")
        for number, (before, after) in enumerate(pairwise(names))
    ]
    other = np.zeros((1024, 1024, 1, 1), np.float32)
    write(path, [*nodes, node("Relu", names[-1])], {"w": other}, (1, 1024, 8, 8))


def made_of_itself(path: Path) -> None:
    """The output is an Identity of itself, which makes a second value of that name."""
    write(path, [node("Relu", "x", "y"), node("Identity", "y", "y")])


MAXIMA = [
    node("ConstantOfShape", "s", "big"),
    *(node("ReduceMax", "big", f"m{number}", keepdims=0) for number in range(300)),
    node("Sum", "x " + " ".join(f"m{number}" for number in range(300))),
]
FULL = ints(1 << 12, 1 << 12)
BOMBS: dict[str, Callable[[Path], None]] = {
    "maxima": of(MAXIMA, s=ints(1 << 26)),
    "maxima of what fits": of(MAXIMA, s=FULL),
    "exponentials": of(
        [node("ConstantOfShape", "s", "big"), *chain("Exp", "big", 300), node("ReduceMax", "v299", "m", keepdims=0),
         node("Add", "x m")], s=FULL),
    "repeated constants": of([*chain("Tile", "one", 24, "twice"), node("ReduceMax", "v23", "m", keepdims=0),
                              node("Add", "x m")],
                one=np.zeros(1, np.float32), twice=ints(2)),
    "ranges": of([*(node("Range", "a b c", f"r{n}") for n in range(200)),
                  node("Concat", " ".join(f"r{n}" for n in range(200)), "all", axis=0),
                  node("ReduceMax", "all", "m", keepdims=0), node("Cast", "m", "f", to=1), node("Add", "x f")],
                 a=ints(0)[0], b=ints(1 << 23)[0], c=ints(1)[0]),
    "gathers": of([node("ConstantOfShape", "s", "big"), *chain("Gather", "big", 300, "i"),
                   node("ReduceMax", "v299", "m", keepdims=0), node("Add", "x m")], s=FULL, i=np.arange(1 << 12)),
    "outer sums": of([*chain("Add", "row", 400, "column"), node("ReduceMax", "v399", "m", keepdims=0),
                      node("Add", "x m")], row=np.zeros((1, 4000), np.float32), column=np.zeros((4000, 1), np.float32)),
    "scales of each place": of([node("DequantizeLinear", "q scale", "f", axis=0),
                                node("ReduceMax", "f", "m", keepdims=0), node("Add", "x m")],
                               q=np.zeros((1, 1 << 16), np.int8), scale=np.ones(1 << 16, np.float32)),
    "one name for all": of([*chain("Relu", "x", 3000, node_name="/same/Relu"), node("Relu", "v2999")]),
    "many layers": of([*chain("Relu", "x", 9000), node("Relu", "v8999")]),
    "long names": of([node("Relu", "x" if not n else f"v{n - 1}", f"v{n}", node_name="onnx::" + "_" * 5000 + "!")
                      for n in range(500)] + [node("Relu", "v499", "y", node_name="/a/a." * 40_000)]),
    "long values": of([node("Conv", "x " + "/weight" * 30_000, "y")],
                      **{"/weight" * 30_000: np.zeros((4, 4, 1, 1), np.float32)}),
    "many parts": of([node("Split", "x", " ".join(f"p{n}" for n in range(4000)), axis=2),
                      node("Concat", " ".join(f"p{n}" for n in range(4000)), "y", axis=2)], shape=(1, 1, 4000, 8)),
    "one region for all": one_region_for_all,
    "one weight for all": one_weight_for_all,
    "made of itself": made_of_itself,
}  # fmt: skip
SUFFIX = ".onnx"
