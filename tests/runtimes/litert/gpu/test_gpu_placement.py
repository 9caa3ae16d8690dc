"""Which operators the GPU delegate takes: its own verdict, and that of the list, which must be the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg.errors import UserError
from slimseg.graph import edit, ops
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.gpu import driver, static, verdict
from slimseg.runtimes.litert.gpu.alone import relative_difference
from slimseg.runtimes.litert.gpu.processor import Gpu
from slimseg.runtimes.litert.writing import writer


def sides(placement):
    return "".join("g" if layer.processor == "gpu" else "c" for layer in placement.layers)


@pytest.mark.parametrize(
    ("row", "placed", "copies"),
    [
        ("sas", "ggg", 0),
        ("ssn", "ggc", 1),  # the network's output is copied anyway, this is the value before it
        ("snsa", "ccgg", 1),
        ("sanssanas", "cccgggccc", 2),
        ("snssnaa", "ccggccc", 2),  # of parts of one size, the first
        ("n", "c", 0),
    ],
)
def test_the_delegate_runs_the_largest_part_of_what_it_takes(gpu, chain, row, placed, copies):
    found = gpu.place(chain(row))
    assert (sides(found), found.copies, found.partitions) == (placed, copies, int("g" in placed))
    assert found.is_own_verdict
    assert found.is_whole == ("c" not in placed)
    reasons = [layer.reason for layer in found.refused]
    refused = {"n": "Operation is not supported."}
    assert reasons == [
        refused.get(letter, verdict.LEFT) for letter, side in zip(row, placed, strict=True) if side == "c"
    ]
    assert sides(static.placement(chain(row), "for the test")) == placed


def test_of_equal_parts_it_is_the_first_that_computes(gpu, chain, noise):
    """Seen in the values: a GPU's sine is not the CPU's to the last bit, its absolute value is."""
    first, second = (gpu.predict(chain(row), noise) for row in ("snna", "anns"))
    assert not np.array_equal(first, session.predict(chain("snna"), noise, raw=True))
    assert np.array_equal(second, session.predict(chain("anns"), noise, raw=True))


def test_an_operator_that_ends_the_process_is_named_and_the_next_file_is_placed(gpu, chain):
    found = gpu.place(chain("sp"))
    assert found.layers[1].reason.startswith("the delegate crashes on it: Check failed")
    assert "crashes" in found.judge
    assert gpu.place(chain("s")).is_whole
    assert sides(static.placement(chain("sp"), "")) == "gc"


def test_an_operator_that_is_taken_and_computed_wrongly_is_told(gpu, tmp_path):
    path = tmp_path / "groups.tflite"
    writer.write(edit.trace(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=4)), (1, 8, 16, 16)), path)
    found = gpu.place(path)
    assert found.layers[0].processor == "gpu"
    assert "computed wrongly" in found.layers[0].reason
    assert not found.is_whole
    assert not static.placement(path, "").is_whole


class Everything(nn.Module):
    """What LiteRT's GPU delegate refuses or computes wrongly if it is written in the first way that comes to mind."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv2d(3, 8, 3, 1, 1)
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1)  # with a fused activation, version 4
        self.odd = nn.ConvTranspose2d(8, 8, 3, 2, 1)  # its output is not its input times its stride
        self.pool = nn.AvgPool2d(3, 2, 1)  # counts zeros that are padded
        self.uneven = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.norm = nn.GroupNorm(2, 8)  # on five dimensions
        self.end = nn.Conv2d(8, 3, 1)
        self.join = ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(self.start(x)))
        x = self.pool(nn.functional.relu6(self.odd(self.pool(x))))
        x = self.norm(self.uneven(x))
        windows = x.permute(0, 2, 3, 1).reshape(1, 4, 2, 4, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(1, 16, 4, 8)
        likeness = windows @ windows.transpose(2, 3)
        x = self.join(x, (torch.softmax(likeness, 3) @ windows).reshape(1, 8, 8, 8).permute(0, 3, 1, 2))
        return self.end(x[:, 4:12])


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    from slimseg import load

    path = tmp_path_factory.mktemp("gpu") / "everything.tflite"
    torch.manual_seed(0)
    writer.write(load(Everything().eval(), (16, 16)), path)
    return path


def test_what_the_writer_writes_is_taken_whole_and_computed_right(gpu, everything):
    found = gpu.place(everything)
    assert not found.refused
    assert found.is_whole
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    assert relative_difference(gpu.predict(everything, images), session.predict(everything, images, raw=True)) < 1e-4


def test_the_list_knows_what_the_writer_writes(everything):
    found = static.placement(everything, "for the test")
    assert found.is_whole
    assert not found.is_own_verdict
    assert "for the test" in found.judge


def test_a_driver_that_is_none_is_one_sentence(tmp_path, chain):
    with pytest.raises(UserError, match="is no Vulkan driver: give its manifest"):
        Gpu(tmp_path / "nothing.json").place(chain("s"))


def test_a_driver_that_does_not_work_is_one_sentence_or_the_list(tmp_path, chain, monkeypatch):
    manifest = tmp_path / "vk_swiftshader_icd.json"
    manifest.write_text('{"file_format_version": "1.0.0", "ICD": {"library_path": "./no.so", "api_version": "1.0.5"}}')
    with pytest.raises(UserError, match=rf"the Vulkan driver {manifest} does not work"):
        Gpu(manifest).place(chain("s"))
    for variable in driver.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(driver, "_SYSTEM", ())
    monkeypatch.setattr(driver, "_BROWSERS", (tmp_path,))
    found = Gpu().place(chain("s"))
    assert not found.is_own_verdict
    assert "does not work" in found.judge
