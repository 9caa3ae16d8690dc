"""How much of a profile belongs to operators, by kind of file: `python benchmarks/profile_zoo.py FILE.tflite ...`.

Each file is also profiled in its float16, dynamic-range and int8 forms where ai-edge-quantizer can make them. Without
files, networks are exported by litert-torch (`pip install 'slimseg[litert-torch]'`), whose spellings are not ours.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from litert_quantizer import quantizer, recipe
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.errors import SlimsegError
from slimseg.runtimes.litert.profiling import profiler
from slimseg.runtimes.litert.quantising.quantizer import _modern, quantize_int8
from slimseg.tflite import file


def block(i: int, o: int, k: int = 3, s: int = 1, d: int = 1, g: int = 1, act: type[nn.Module] = nn.ReLU6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, k, s, d * (k // 2), d, g, bias=False), nn.BatchNorm2d(o), act())


class DeepLab(nn.Module):
    """Dilated pyramid at 513x513, argmax in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16, s=2), block(16, 32, s=2), block(32, 64, s=2), block(64, 64, s=2))
        self.pyramid = nn.ModuleList([block(64, 48, 1), *(block(64, 48, d=rate) for rate in (6, 12, 18))])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 48, 1))
        self.project, self.head = block(240, 48, 1), nn.Conv2d(48, 21, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.permute(0, 3, 1, 2))
        pooled = F.interpolate(self.pool(y), size=y.shape[2:], mode="bilinear")
        y = self.head(self.project(torch.cat([*(branch(y) for branch in self.pyramid), pooled], 1)))
        return torch.argmax(F.interpolate(y, size=x.shape[1:3], mode="bilinear"), 1)


class Excite(nn.Module):
    """MobileNetV3's parts: hard-swish, squeeze-and-excite, softmax over an aligned resize."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(block(3, 16, s=2, act=nn.Hardswish), block(16, 64, s=2, act=nn.Hardswish))
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1), nn.Hardsigmoid())
        self.depthwise, self.head = block(64, 64, 5, g=64, act=nn.Hardswish), nn.Conv2d(64, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x.permute(0, 3, 1, 2))
        y = self.head(self.depthwise(y * self.squeeze(y)))
        y = F.interpolate(y, size=x.shape[1:3], mode="bilinear", align_corners=True)
        return torch.softmax(y, 1).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """A transformer's block: layer norm, attention, GELU, pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 32, 8, 8), nn.LayerNorm(32)
        self.query, self.both = nn.Linear(32, 32), nn.Linear(32, 64)
        self.wide, self.head = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32)), nn.Conv2d(32, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x.permute(0, 3, 1, 2))
        n, c, h, w = y.shape
        tokens = y.flatten(2).transpose(1, 2)
        key, value = self.both(self.norm(tokens)).chunk(2, -1)
        tokens = tokens + torch.softmax(self.query(self.norm(tokens)) @ key.transpose(1, 2) / 5.66, -1) @ value
        tokens = tokens + self.wide(tokens)
        return F.pixel_shuffle(self.head(tokens.transpose(1, 2).reshape(n, c, h, w)), 8)


NETWORKS = {"deeplab": (DeepLab, 513, 513), "excite": (Excite, 256, 320), "attention": (Attention, 192, 192)}


def exported(folder: Path) -> Iterator[Path]:
    """Each network by litert-torch."""
    import litert_torch

    for name, (kind, height, width) in NETWORKS.items():
        torch.manual_seed(0)
        path = folder / f"{name}.tflite"
        litert_torch.convert(kind().eval(), (torch.randn(1, height, width, 3),)).export(str(path))
        yield path


def forms(path: Path, folder: Path) -> Iterator[Path]:
    """The file itself and what ai-edge-quantizer makes of it."""
    yield path
    float16 = recipe.recipe_manager.RecipeManager()
    types = recipe.qtyping
    float16.add_quantization_config(
        ".*",
        types.TFLOperationName.ALL_SUPPORTED,
        op_config=types.OpQuantizationConfig(
            weight_tensor_config=types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT),
            compute_precision=types.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
    )
    recipes = {
        "float16": float16.get_quantization_recipe(),
        "dynamic": recipe.dynamic_wi8_afp32(),
        "weights8": recipe.weight_only_wi8_afp32(),
    }
    for name, chosen in recipes.items():
        made = folder / f"{path.stem}.{name}.tflite"
        worker = quantizer.Quantizer(_modern(path)[0], chosen)
        made.write_bytes(worker.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
        yield made
    made = folder / f"{path.stem}.int8.tflite"
    shape = file.read(path).inputs[0].shape
    quantize_int8(path, made, [np.random.default_rng(0).standard_normal(shape, np.float32)])
    yield made


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print("| file | latency | attributed | XNNPACK parts | off XNNPACK | islands |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in [Path(name) for name in sys.argv[1:]] or exported(folder):
            try:
                for each in forms(path, folder):
                    print(line(each), flush=True)
            except SlimsegError as error:
                print(f"| {path.name} | {error} |")


def line(path: Path) -> str:
    result = profiler.profile(path, runs=15)
    known = sum(layer.latency_ms for layer in result.layers)
    attributed = known / (known + result.unattributed_ms)
    off = sum(fallback.share for fallback in result.fallbacks)
    return (
        f"| {path.name} | {result.latency_ms:.2f} ms | {attributed:.1%} | {result.delegate_parts} | {off:.0%} "
        f"| {len(result.islands)} |"
    )


if __name__ == "__main__":
    main()
