"""Made-up but plausible results: a U-Net slimmed from 266 ms to 12 ms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slimseg.deployment import Deployment
from slimseg.report.html import Example
from slimseg.results import (
    AppliedEdit,
    BudgetCheck,
    Diagnosis,
    Evaluation,
    Fallback,
    Finding,
    Island,
    KernelProfile,
    LayerProfile,
    ModelSummary,
    NodeType,
    Profile,
    Refusal,
    Roof,
    SlimResult,
    Statistics,
)

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
HOSTILE = '<script>alert("x")</script>'


def make_profile(model: str, latency_ms: float, seed: int, precision: str) -> Profile:
    """32 layers whose times and `unattributed_ms` add up to `latency_ms`."""
    random = np.random.default_rng(seed)
    ops = ["CONV_2D"] * 14 + ["DEPTHWISE_CONV_2D"] * 7 + ["TRANSPOSE_CONV"] * 5 + ["CONCATENATION", "RESIZE_BILINEAR"]
    ops += ["ADD", "SOFTMAX", "PAD", "MAX_POOL_2D"]
    names = [f"{'encoder' if i < 16 else 'decoder'}_block{i % 8}_{'expand' if i % 2 else 'project'}" for i in range(32)]
    parts = random.dirichlet(np.full(32, 0.6))
    layers = tuple(
        LayerProfile(
            name=name,
            op=op,
            kernel=f"{op} (NHWC, {precision}) IGEMM",
            latency_ms=0.0 if op == "PAD" else float(0.98 * latency_ms * part),
            whole_ms=latency_ms,
            macs=int(part * 24.1e9) if "CONV" in op else 0,
            params=int(part * 7.85e6) if "CONV" in op else 0,
            memory_bytes=int(part * 3e8),
            output_shape=(1, 180, 240, 64),
        )
        for name, op, part in zip(names, ops, parts, strict=True)
    )
    return Profile(
        model=model,
        runtime="LiteRT 2.3.0 (XNNPACK)",
        threads=1,
        runs=50,
        latency_ms=latency_ms,
        latency_p10_ms=latency_ms * 0.98,
        latency_p90_ms=latency_ms * 1.05,
        size_bytes=31_400_000,
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        layers=layers,
    )


@pytest.fixture
def before() -> Profile:
    return make_profile("camvid_unet.tflite", 266.4, 1, "F32")


@pytest.fixture
def after() -> Profile:
    return make_profile("model.tflite", 12.05, 7, "QS8")


@pytest.fixture
def full(after: Profile) -> Profile:
    """A profile with all that a measured one has: statistics, kernels, roofs, fallbacks, islands."""
    share, layers, kernels = 0.0, list(after.layers), []
    start_ms = 0.0
    for index in sorted(range(len(layers)), key=lambda i: -layers[i].latency_ms):
        layer = layers[index]
        share += layer.share
        own = Statistics(layer.latency_ms * 2, layer.latency_ms, layer.latency_ms / 2, layer.latency_ms * 2, 0.01, 50)
        delegate = "built-in" if layer.op == "SOFTMAX" else "XNNPACK" if layer.latency_ms else ""
        bound = "memory-bound" if delegate else "fused"
        layers[index] = replace(layer, statistics=own, cumulative=share, delegate=delegate, bound=bound)
    for index, layer in enumerate(layers):
        if layer.delegate:
            made = KernelProfile(layer.kernel, layer.delegate, index, start_ms, layer.latency_ms, layer.statistics)
            kernels.append(made)
            start_ms += layer.latency_ms
    return replace(
        after,
        layers=tuple(layers),
        statistics=Statistics(20.0, 12.2, 12.0, 20.0, 0.5, 50),
        load_ms=0.6,
        prepare_ms=5.4,
        first_run_ms=25.0,
        peak_memory_bytes=54_600_000,
        delegate_parts=2,
        kernels=tuple(kernels),
        node_types=tuple(
            NodeType(f"Convolution (NHWC, QC8) {i}", "XNNPACK", 3, 0.1, 0.3, 0.1, 0.1 * (i + 1), 150) for i in range(10)
        ),
        roofs=(Roof("int8", 459.2, "3x3, 128 to 128 channels at 32x32", ((12288, 15.7), (98304, 32.2))),),
        fallbacks=(Fallback("SOFTMAX", ("softmax",), 4.9, 0.07, 12.05), Fallback("RELU", ("r",) * 23, 1.0, 0.0, 12.05)),
        islands=tuple(Island((f"prelu{i}",), ("PRELU",), 0.1, 0.01, 12.05) for i in range(100)),
    )


@pytest.fixture
def diagnosis() -> Diagnosis:
    return Diagnosis(
        model="camvid_unet.pt2",
        deployment=Deployment(),
        latency_ms=266.4,
        findings=(
            Finding("head", ("softmax",), "nothing", 8.4, 0.9, 266.4, "argmax replaces softmax: same mask."),
            Finding("input_size", ("input",), "images", 266.4, 97.6, 266.4, "224×288 keeps the mIoU."),
            Finding(
                "separable_convolution",
                ("decoder_conv1", "decoder_conv2", "decoder_conv3"),
                "labels",
                61.2,
                19.9,
                266.4,
                "A rank-1 fit keeps 93% of the weights' energy.",
            ),
        ),
        refusals=REFUSALS,
    )


REFUSALS = (
    Refusal("separable_convolution", "stem", "three input channels leave nothing to separate"),
    Refusal("separable_convolution", "encoder_block3_expand", "already 1×1"),
    Refusal("separable_convolution", "encoder_block5_expand", "already 1×1"),
    Refusal("transposed_convolution", HOSTILE, "its weights are shared with another layer"),
)


@pytest.fixture
def evaluation() -> Evaluation:
    iou: dict[str, float | None] = dict(zip(CLASSES, np.linspace(91.3, 21.7, 11).tolist(), strict=True))
    iou["bicyclist"] = None
    return Evaluation("model.tflite", "camvid", "val", 101, 61.2, 90.4, iou)


def summary(file: str, **numbers: object) -> ModelSummary:
    values: dict[str, object] = {"input_size": (360, 480), "macs": 24_100_000_000, "params": 7_850_000}
    values |= {"miou": 61.9, "agreement": 100.0} | numbers
    return ModelSummary(file=file, **values)  # type: ignore[arg-type]


@pytest.fixture
def slim_result(tmp_path: Path) -> SlimResult:
    return SlimResult(
        model="camvid_unet.pt2",
        run=str(tmp_path / "run"),
        baseline=summary("original.tflite", latency_ms=266.4, end_to_end_ms=271.3, size_bytes=31_400_000),
        plain_int8=summary(
            "plain_int8.tflite", latency_ms=95.2, end_to_end_ms=100.1, size_bytes=8_030_000, miou=61.4, agreement=97.9
        ),
        result=summary(
            "model.tflite",
            input_size=(224, 288),
            latency_ms=12.05,
            end_to_end_ms=13.4,
            size_bytes=3_912_000,
            macs=1_340_000_000,
            params=3_620_000,
            miou=61.2,
            agreement=95.1,
        ),
        budget_met=False,
        budget=(
            BudgetCheck("max_size", "at most 4.00 MB", "3.91 MB", True),
            BudgetCheck("min_speedup", "at least 16×", "22.1×", True),
            BudgetCheck("max_drop", "at most 0.5", "0.7", False),
        ),
        edits=(
            AppliedEdit("head", ("softmax",), "nothing", 7.5, 7.1, "argmax replaces softmax: same mask."),
            AppliedEdit("input_size", ("input",), "images", 150.0, 161.7, "224×288 keeps the mIoU."),
            AppliedEdit(
                "separable_convolution",
                ("decoder_conv1", "decoder_conv2", "decoder_conv3"),
                "images",
                31.3,
                28.8,
                "A rank-1 fit keeps 93% of the weights' energy.",
            ),
            AppliedEdit(
                "transposed_convolution", ("decoder_up4",), "images", 22.4, 19.6, "Convolves before the resize."
            ),
            AppliedEdit("transposed_convolution", ("decoder_up5",), "images", 0.9, -1.4, "Slower, but int8 likes it."),
        ),
        refusals=REFUSALS,
        seconds=2_905,
        host="Intel Xeon @ 2.20 GHz, 2 cores",
    )


@pytest.fixture
def examples() -> list[Example]:
    return [make_example("street_0001.jpg", 3, labelled=True), make_example(f"{HOSTILE}.jpg", 4, labelled=False)]


def make_example(name: str, seed: int, labelled: bool) -> Example:
    """A (60, 80) gradient with sky above road, and a car that the after-mask draws a little wider."""
    random = np.random.default_rng(seed)
    height, width = 60, 80
    image = np.linspace(40, 220, height * width * 3).reshape(height, width, 3) + random.normal(0, 8, (height, width, 3))
    truth = np.zeros((height, width), np.uint8)
    truth[30:] = 3
    truth[25:45, 20:40] = 8
    before, after = truth.copy(), truth.copy()
    before[25:45, 38:40] = 3
    after[25:45, 40:43] = 8
    truth[-2:] = 255
    return Example(name, image.clip(0, 255).astype(np.uint8), truth if labelled else None, before, after)
