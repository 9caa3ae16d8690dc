"""Small networks of the kinds that people bring, and odd files, to profile."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.graph.description import Description
from slimseg.runtimes.litert.quantising.quantizer import _modern, quantize_int8
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

CODES, KINDS = tflite.BuiltinOperator, tflite.BuiltinOptions


def step(i: int, o: int, k: int = 3, s: int = 1, d: int = 1, g: int = 1, act: type[nn.Module] = nn.ReLU6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, k, s, d * (k // 2), d, g, bias=False), nn.BatchNorm2d(o), act())


class Atrous(nn.Module):
    """DeepLab's end: parallel dilated convolutions, image pooling, concatenation, resize, argmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(step(3, 16, s=2), step(16, 32, s=2), step(32, 32, g=32), step(32, 32, d=2, g=32))
        self.branches = nn.ModuleList([step(32, 16, 1), step(32, 16, d=2), step(32, 16, d=4)])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 16, 1), nn.ReLU())
        self.project, self.classify = step(64, 32, 1), nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = F.interpolate(self.pool(y), size=(33, 33), mode="bilinear")
        y = torch.cat([*(branch(y) for branch in self.branches), pooled], 1)
        y = F.interpolate(self.classify(self.project(y)), size=(129, 129), mode="bilinear")
        return torch.argmax(y, 1)


class Excite(nn.Module):
    """MobileNetV3's parts: hard-swish, squeeze-and-excite, a gated head, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(step(3, 16, s=2, act=nn.Hardswish), step(16, 32, s=2))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.Hardsigmoid()
        )
        self.deep = nn.Sequential(step(32, 64, 1, act=nn.Hardswish), step(64, 64, 5, g=64, act=nn.Hardswish))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1), nn.Sigmoid())
        self.head = nn.Conv2d(64, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = self.deep(y * self.squeeze(y))
        y = self.head(y * self.gate(y))
        return torch.softmax(F.interpolate(y, size=(128, 160), mode="bilinear", align_corners=True), 1)


class Ladder(nn.Module):
    """A U-Net with transposed convolutions and PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([step(3, 8, act=nn.LeakyReLU), step(8, 16), step(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.join = nn.ModuleList([step(32, 16), step(16, 8)])
        self.slope, self.head = nn.PReLU(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        y = self.down[2](F.max_pool2d(second, 2))
        y = self.join[0](torch.cat((self.up[0](y), second), 1))
        y = self.join[1](torch.cat((self.up[1](y), first), 1))
        return torch.sigmoid(self.head(self.slope(y)))


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, int]]] = {
    "atrous": (Atrous, (129, 129)),
    "excite": (Excite, (128, 160)),
    "ladder": (Ladder, (96, 128)),
}
FORMS = ("float32", "float16", "dynamic", "int8")


def network(name: str, form: str, folder: Path) -> Path:
    """One network in one form; `folder` may hold it already."""
    kind, size = NETWORKS[name]
    torch.manual_seed(0)
    path, made = folder / f"{name}.tflite", folder / f"{name}.{form}.tflite"
    if not path.exists():
        writer.write(slimseg.load(kind().eval(), size, name=name), path)
    if form == "float32":
        return path
    if form == "int8":
        quantize_int8(path, made, [np.random.default_rng(0).standard_normal((1, *size, 3), np.float32)])
        return made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litert_quantizer import quantizer, recipe

        logging.getLogger().setLevel(logging.ERROR)
        chosen = recipe.dynamic_wi8_afp32() if form == "dynamic" else _float16(recipe)
        worker = quantizer.Quantizer(_modern(path, {})[0], chosen)
        made.write_bytes(worker.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
    return made


def _float16(recipe: object) -> object:
    types = recipe.qtyping  # type: ignore[attr-defined]
    manager = recipe.recipe_manager.RecipeManager()  # type: ignore[attr-defined]
    weights = types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT)
    config = types.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=types.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    manager.add_quantization_config(
        ".*",
        types.TFLOperationName.ALL_SUPPORTED,
        op_config=config,
        algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,  # type: ignore[attr-defined]
    )
    return manager.get_quantization_recipe()


# Odd files, written by hand

SIZE = (1, 64, 64, 8)


class Odd:
    """A builder with an input x; `conv` and `custom` append operators."""

    def __init__(self) -> None:
        self.builder = ModelBuilder()
        self.x = self.builder.tensor("x", SIZE)

    def conv(self, source: int, name: str, outputs: int, size: tuple[int, ...] = SIZE, kernel: int = 3) -> int:
        weights = np.random.default_rng(0).standard_normal((outputs, kernel, kernel, size[3]), np.float32) / 10
        constants = self.builder.constant(f"{name}/w", weights), self.builder.constant(f"{name}/b", weights[:, 0, 0, 0])
        target = self.builder.tensor(name, (*size[:3], outputs))
        options = tflite.Conv2DOptionsT()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        self.builder.operator(CODES.CONV_2D, [source, *constants], target, options, KINDS.Conv2DOptions)
        return target

    def custom(self, inputs: list[int], name: str, size: tuple[int, ...], code: bytes, options: bytes = b"") -> int:
        target = self.builder.tensor(name, size)
        self.builder.operator(CODES.CUSTOM, inputs, target)
        self.builder.model.operatorCodes[-1].customCode = code
        self.builder.subgraph.operators[-1].customOptions = np.frombuffer(options, np.uint8)
        return target

    def save(self, path: Path, output: int) -> Path:
        path.write_bytes(self.builder.finish([self.x], [output], Description()))
        return path


def mediapipe(path: Path) -> Path:
    """An operator of MediaPipe's that XNNPACK takes and LiteRT has no kernel for."""
    odd = Odd()
    weights = np.random.default_rng(0).standard_normal((3, 2, 2, 16)).astype(np.float32)
    inputs = [odd.conv(odd.x, "conv", 16), odd.builder.constant("w", weights)]
    inputs.append(odd.builder.constant("b", np.zeros(3, np.float32)))
    up = odd.custom(inputs, "up", (1, 128, 128, 3), b"Convolution2DTransposeBias", struct.pack("<3i", 1, 2, 2))
    return odd.save(path, odd.conv(up, "last", 4, (1, 128, 128, 3)))


def no_signature(path: Path) -> Path:
    """Two outputs, no signature, operator codes in the deprecated byte alone."""
    odd = Odd()
    first = odd.conv(odd.x, "first", 16)
    last = odd.conv(first, "last", 4, (1, 64, 64, 16))
    odd.save(path, last)
    model = odd.builder.model
    model.subgraphs[0].outputs = np.array([last, first], np.int32)
    model.signatureDefs = []
    for entry in model.operatorCodes:
        entry.builtinCode = 0
    path.write_bytes(file.pack(model))
    return path


def two_inputs(path: Path) -> Path:
    """Two inputs of different shapes, which the signature lists in another order than the graph."""
    odd = Odd()
    other = odd.builder.tensor("other", (1, 64, 64, 4))
    sides = odd.conv(odd.x, "left", 16), odd.conv(other, "right", 16, (1, 64, 64, 4))
    total = odd.builder.tensor("total", (1, 64, 64, 16))
    odd.builder.operator(CODES.ADD, sides, total, tflite.AddOptionsT(), KINDS.AddOptions)
    odd.save(path, total)
    odd.builder.subgraph.inputs = np.array([odd.x, other], np.int32)
    odd.builder.subgraph.outputs = np.array([sides[0], total], np.int32)
    signature = odd.builder.model.signatureDefs[0]
    signature.inputs = [odd.builder._named(b"b", other), odd.builder._named(b"a", odd.x)]
    signature.outputs = [odd.builder._named(b"o2", total), odd.builder._named(b"o1", sides[0])]
    path.write_bytes(file.pack(odd.builder.model))
    return path


def branches(path: Path) -> Path:
    """IF between two subgraphs; the first signature speaks of one of those."""
    odd = Odd()
    main = odd.builder.subgraph
    condition = odd.builder.tensor("condition", (1,))
    main.tensors[condition].type = tflite.TensorType.BOOL
    before, either = odd.conv(odd.x, "before", 8), odd.builder.tensor("either", SIZE)
    options = tflite.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    odd.builder.operator(CODES.IF, [condition, before], either, options, KINDS.IfOptions)
    last = odd.conv(either, "last", 4)
    for kernel in (1, 3):
        nested = odd.builder.subgraph = tflite.SubGraphT()
        nested.tensors, nested.operators = [], []
        source = odd.builder.tensor("inner", SIZE)
        nested.inputs = np.array([source], np.int32)
        nested.outputs = np.array([odd.conv(source, f"nested{kernel}", 8, kernel=kernel)], np.int32)
        odd.builder.model.subgraphs.append(nested)
    odd.builder.subgraph = main
    odd.save(path, last)
    main.inputs = np.array([condition, odd.x], np.int32)
    of_main, named = odd.builder.model.signatureDefs[0], odd.builder._named
    of_main.inputs = [named(b"condition", condition), named(b"x", odd.x)]
    of_branch = tflite.SignatureDefT()
    of_branch.signatureKey, of_branch.subgraphIndex = b"branch", 1
    of_branch.inputs, of_branch.outputs = (
        [named(b"i", 0)],
        [named(b"o", int(odd.builder.model.subgraphs[1].outputs[0]))],
    )
    odd.builder.model.signatureDefs = [of_branch, of_main]
    path.write_bytes(file.pack(odd.builder.model))
    return path


def computed_shape(path: Path) -> Path:
    """A reshape to a shape that is computed: built-in kernels, and the delegate in two parts."""
    odd = Odd()
    first, shape = odd.conv(odd.x, "first", 16), odd.builder.tensor("shape", (4,), np.int32)
    options = tflite.ShapeOptionsT()
    options.outType = tflite.TensorType.INT32
    odd.builder.operator(CODES.SHAPE, [first], shape, options, KINDS.ShapeOptions)
    same = odd.builder.tensor("same", (1, 64, 64, 16))
    odd.builder.operator(CODES.RESHAPE, [first, shape], same, tflite.ReshapeOptionsT(), KINDS.ReshapeOptions)
    return odd.save(path, odd.conv(same, "last", 4, (1, 64, 64, 16)))


def unknown_operator(path: Path) -> Path:
    odd = Odd()
    return odd.save(path, odd.custom([odd.conv(odd.x, "conv", 8)], "mine", SIZE, b"MyOperator"))


def resized(path: Path, size: tuple[int, ...]) -> Path:
    """A convolution whose input the file says to be of `size`."""
    odd = Odd()
    output = odd.conv(odd.x, "conv", 4)
    odd.builder.subgraph.tensors[odd.x].shape = np.array(size, np.int32)
    odd.builder.subgraph.tensors[output].shape = np.array((*size[:3], 4), np.int32)
    return odd.save(path, output)


def cycle(path: Path) -> Path:
    """Two convolutions that wait for each other."""
    odd = Odd()
    last = odd.conv(odd.conv(odd.x, "first", 8), "last", 8)
    odd.builder.subgraph.operators[0].inputs[0] = last
    return odd.save(path, last)


def of_text(path: Path) -> Path:
    odd = Odd()
    odd.builder.subgraph.tensors[odd.x].type = tflite.TensorType.STRING
    return odd.save(path, odd.conv(odd.x, "conv", 4))


ODD: dict[str, Callable[[Path], Path]] = {
    each.__name__: each for each in (mediapipe, no_signature, two_inputs, branches, computed_shape)
}
