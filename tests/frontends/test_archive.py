"""`.pt2` files: what slimseg writes comes back, and nothing in a hostile or broken one runs or crashes."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import slimseg
from slimseg.errors import ModelError, OutputError
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


def exported(path: Path, **options: object) -> Path:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its future
        program = torch.export.export(Net().eval(), (torch.zeros(1, 3, 16, 16),), **options)
        torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("pt2") / "small.pt2")


def rebuilt(source: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(source) as archive_:
        entries = {name: archive_.read(name) for name in archive_.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive_:
        for name, data in entries.items():
            archive_.writestr(name, data)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        slimseg.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def opened(path: Path) -> Graph | None:
    """The graph, or None where the file was refused in one sentence."""
    try:
        return slimseg.load(path)
    except ModelError as error:
        message = str(error)
    assert "\n" not in message
    return None


def test_camvid_unet_is_what_torch_reads_and_trains(shared):
    path = shared / "models/camvid_unet.pt2"
    graph = slimseg.load(path)
    assert graph.opaque() == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = torch.export.load(path).module()
    x = torch.randn(graph.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), original(x), atol=1e-4, rtol=1e-4)
    small = torch.randn(2, 3, 64, 96)
    graph = slimseg.load(path, input_size=(64, 96))
    graph.module.train()
    graph(small).square().mean().backward()
    assert all(each.grad is not None for each in graph.module.parameters())


def test_round_trip(small, tmp_path):
    graph = slimseg.load(
        small, mean=(1, 2, 3), std=4, channel_order="bgr", classes=("a", "b"), output_kind="probabilities"
    )
    assert graph.description == Description(Preprocessing((1, 2, 3), (4, 4, 4), "bgr"), ("a", "b"), "probabilities")
    graph.save(tmp_path / "again.pt2")
    again = slimseg.load(tmp_path / "again.pt2")
    assert again.description == graph.description
    x = torch.randn(graph.input_shape)
    torch.testing.assert_close(again(x), graph(x))
    assert os.listdir(tmp_path) == ["again.pt2"]
    assert slimseg.load(tmp_path / "again.pt2", std=9).description.preprocessing.std == (9, 9, 9)


def test_a_place_that_cannot_be_written(small, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        slimseg.load(small).save(tmp_path / "absent" / "m.pt2")


def test_another_input_size(small):
    assert slimseg.load(small, input_size=(24, 32)).shape(slimseg.load(small).output) == (1, 4, 8, 8)


def test_weights_beside_an_archive_are_refused(small):
    with pytest.raises(ModelError, match="contains its weights"):
        slimseg.load(small, weights="w.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x00" * 1000])
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "bad.pt2"
    path.write_bytes(content)
    refused(path)


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "absent.pt2")
    (tmp_path / "folder.pt2").mkdir()
    refused(tmp_path / "folder.pt2")


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.9, 0.99, 0.999])
def test_truncated(small, tmp_path, kept):
    data = small.read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_crashes(small, tmp_path, position, bit):
    data = bytearray(small.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path = tmp_path / "flipped.pt2"
    path.write_bytes(data)
    graph = opened(path)
    if graph is not None:
        x = torch.randn(1, 3, 16, 16)
        torch.testing.assert_close(graph(x), slimseg.load(small)(x))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nonsense_in_the_program_never_crashes(small, tmp_path, data):
    """Checksums are right here: somebody wrote this on purpose."""

    def change(entries: dict[str, bytes]) -> None:
        name = data.draw(st.sampled_from([name for name in entries if name.endswith(".json")]))
        text = entries[name].decode()
        start = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 40))
        filling = data.draw(st.sampled_from(["", "null", "0", '"x"', "{}", "[]", "-1", "}"]))
        entries[name] = (text[:start] + filling + text[start + length :]).encode()

    opened(rebuilt(small, tmp_path / "nonsense.pt2", change))


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def pickled(trap: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(trap), buffer)
    return buffer.getvalue()


def hide_in_weights(entries: dict[str, bytes], trap: Path) -> None:
    name = next(name for name in entries if name.endswith("weights_config.json"))
    config = json.loads(entries[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    entries[name] = json.dumps(config).encode()
    entries[f"{name.rpartition('/')[0]}/{first['path_name']}"] = pickled(trap)


def hide_in_constants(entries: dict[str, bytes], trap: Path) -> None:
    name = next(name for name in entries if name.endswith("constants_config.json"))
    for prefix in ("opaque_obj_0", "custom_obj_0"):
        entry = {"path_name": prefix, "is_param": False, "use_pickle": False, "tensor_meta": {}}
        entries[name] = json.dumps({"config": {"c": entry}}).encode()
        entries[f"{name.rpartition('/')[0]}/{prefix}"] = pickle.dumps(Payload(trap))


def hide_in_sample_inputs(entries: dict[str, bytes], trap: Path) -> None:
    entries[next(name for name in entries if "sample_inputs" in name)] = pickled(trap)


def hide_in_the_old_layout(entries: dict[str, bytes], trap: Path) -> None:
    entries.clear()
    entries["version"] = b"8.0"
    for name in ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt"):
        entries[name] = pickled(trap)
    entries["serialized_exported_program.json"] = b"{}"


@pytest.mark.parametrize("hide", [hide_in_weights, hide_in_constants, hide_in_sample_inputs, hide_in_the_old_layout])
def test_pickles_are_never_opened(small, tmp_path, hide):
    trap = tmp_path / "trap"
    path = rebuilt(small, tmp_path / "evil.pt2", lambda entries: hide(entries, trap))
    if hide is hide_in_sample_inputs:
        slimseg.load(path)  # they are not needed, so they are not read
    else:
        refused(path)
    assert not trap.exists()


def test_the_trap_works(tmp_path):
    torch.load(io.BytesIO(pickled(tmp_path / "trap")), weights_only=False)
    assert (tmp_path / "trap").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(small, tmp_path):
    path = tmp_path / "double.pt2"
    path.write_bytes(small.read_bytes())
    with zipfile.ZipFile(path, "a") as archive_:
        archive_.writestr(archive_.namelist()[0], b"{}")
    assert "two entries" in refused(path)


def test_dynamic_shapes_are_refused(tmp_path):
    path = exported(tmp_path / "dynamic.pt2", dynamic_shapes=({2: torch.export.Dim("h", min=8, max=64) * 2},))
    assert "dynamic shapes" in refused(path)


def test_a_call_outside_aten_is_refused(small, tmp_path):
    def change(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if "/models/" in name)
        entries[name] = entries[name].replace(b"torch.ops.aten.relu.default", b"os.system")

    assert "os.system" in refused(rebuilt(small, tmp_path / "call.pt2", change))
