"""Qualcomm's own compiler, through LiteRT's plugin, on tiny files."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import slimseg
from slimseg.errors import ModelError, RuntimeFailure, Unsupported
from slimseg.runtimes import registry
from slimseg.runtimes.litert.npu import compiler, libraries, tool
from slimseg.runtimes.litert.npu.socs import SOCS

pytestmark = pytest.mark.usefixtures("qualcomm")
BY_NAME = {soc.name: soc for soc in SOCS}


def npu(name):
    (found,) = registry.processors(registry.DEFAULT, f"npu:{name}")
    return found


def test_a_whole_file_is_compiled(int8_file):
    placement = npu("sm8750").place(int8_file)
    assert placement.is_whole
    assert (placement.partitions, placement.copies) == (1, 0)
    assert placement.is_own_verdict
    assert "onnxruntime" in placement.judge or "sdk" in placement.judge
    (layer,) = placement.layers
    assert (layer.name, layer.op, layer.processor, layer.reason) == ("conv", "CONV_2D", "npu:sm8750", "")
    found = placement.compilation
    assert found.context_bytes > 1000
    assert found.operators > 1
    assert found.ddr_read_bytes >= 16 * 16 * 4 + 8 * 3 * 3 * 4  # the input and the weights
    assert found.ddr_write_bytes >= 16 * 16 * 8
    assert found.ddr_bytes == found.ddr_read_bytes + found.ddr_write_bytes
    assert found.spill_bytes == found.fill_bytes == 0
    assert found.estimated_ms is None


def test_the_plugin_knows_every_chip(qualcomm):
    names = set(re.findall(rb"[A-Z]{2,3}[0-9]{3,4}[A-Z]{0,2}", qualcomm.plugin.read_bytes()))
    assert {soc.name.encode() for soc in SOCS} <= names
    assert len({soc.name for soc in SOCS}) == len(SOCS) == 57


def test_what_the_plugin_does_not_know_stays_on_the_cpu(broken_up):
    placement = npu("sm8650").partition(broken_up)
    assert [layer.processor for layer in placement.layers] == ["npu:sm8650", "cpu", "npu:sm8650"]
    (strange,) = placement.refused
    assert strange.name == "strange"
    assert strange.reason.startswith("LiteRT's plugin has no translation of ")
    assert (placement.partitions, placement.copies, placement.taken) == (2, 2, 2)
    with pytest.raises(Unsupported, match=r"1 of 3 operators stay on the CPU, the first of them .* \(strange\)"):
        npu("sm8650").predict(broken_up, np.zeros((1, 32, 32, 4), np.float32))


def test_an_npu_without_floats_says_so(tiny):
    placement = npu("qcm6490").place(tiny)
    assert placement.taken == placement.partitions == 0
    assert placement.layers[0].reason == "Conv2d: The SocModel doesn't support FP16"
    assert placement.compilation is None


def test_transposed_convolutions_of_uneven_maps_are_taken(tmp_path):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU())
    path = tmp_path / "uneven.tflite"
    registry.DEFAULT.write(slimseg.load(layer.eval(), input_size=(11, 15)), path)
    assert npu("sm8750").partition(path).is_whole


def test_a_damaged_file_and_an_unknown_chip(tmp_path, tiny):
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(tiny.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"damaged\.tflite"):
        npu("sm8750").place(damaged)
    with pytest.raises(RuntimeFailure, match="SM9999"):
        compiler.partition(tiny, replace(BY_NAME["SM8750"], name="SM9999"))


def test_a_compiler_that_hangs_or_is_killed_is_one_sentence(monkeypatch, tiny, tmp_path, qualcomm):
    with pytest.raises(RuntimeFailure, match=r"did not finish within 0\.001 s"):
        compiler.compiled(tiny, BY_NAME["SM8750"], tmp_path / "out.tflite", timeout_s=0.001)
    script = tmp_path / "tool"
    script.write_text("#!/bin/sh\necho '<E> out of registers'\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(libraries, "find", lambda: replace(qualcomm, tool=script))
    with pytest.raises(RuntimeFailure, match=r"crashed \(SIGSEGV\) for SM8750; it printed: <E> out of registers"):
        compiler.partition(tiny, BY_NAME["SM8750"])
    script.unlink()
    with pytest.raises(RuntimeFailure, match="tool does not start"):
        compiler.partition(tiny, BY_NAME["SM8750"])
    assert tool.LONGEST_S > 60
