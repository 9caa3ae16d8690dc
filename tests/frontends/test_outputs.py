"""Networks of several outputs: the likely one is used and told, and the user can name another, whatever the source."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.errors import ModelError
from slimseg.frontends import chosen_output
from slimseg.frontends.outputs import Output, choose
from slimseg.tflite import file

SIZE = (16, 24)


class Two(nn.Module):
    """A coarse auxiliary map with five classes, and the one that segments, with four."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.aux, self.main = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 5, 3, 2, 1), nn.Conv2d(8, 4, 1)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.body(x))
        return self.aux(x), self.main(x)


class Named(Two):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(("aux", "out"), self.maps(x), strict=True))


class Ordered(Two):
    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(("aux", "out"), self.maps(x), strict=True))


class Nested(Two):
    def forward(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        aux, main = self.maps(x)
        return [aux], {"main": main}


class Numbered(Two):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps(x)


Maps = namedtuple("Maps", ("aux", "main"))


class Fields(Two):
    def forward(self, x: Tensor) -> Maps:
        return Maps(*self.maps(x))


def exported(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 3, *SIZE),)), path)
    return path


LABELS = [(Named, "aux", "out"), (Ordered, "aux", "out"), (Nested, "0.0", "1.main"), (Numbered, "0", "1")]


@pytest.mark.parametrize(
    ("kind", "aux", "main", "in_file"),
    [
        (Fields, "aux", "main", False),  # torch does not export named tuples into files
        *((*labels, in_file) for labels in LABELS for in_file in (False, True)),
    ],
)
def test_the_map_that_segments_is_used_and_any_other_can_be_named(tmp_path, kind, aux, main, in_file):
    module, x = kind().eval(), torch.randn(1, 3, *SIZE)
    source = exported(module, tmp_path / "net.pt2") if in_file else module
    size = None if in_file else SIZE
    graph = slimseg.load(source, size)
    (note,) = graph.notes
    assert f"2 outputs ({aux} (1, 5, 8, 12), {main} (1, 4, 16, 24)): {main} is used" in note
    wanted = module.maps(x)
    torch.testing.assert_close(graph(x), wanted[1])
    for output in (aux, 0):
        chosen = slimseg.load(source, size, output=output)
        assert chosen.notes == ()
        torch.testing.assert_close(chosen(x), wanted[0])
    with pytest.raises(ModelError, match=r"has no output 'depth': `output` can be one of"):
        slimseg.load(source, size, output="depth")


class Prompted(Two):
    """As SAM: masks (images, prompts, masks, height, width) and scores of the masks."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        masks = self.maps(x)[1][:, None]
        return {"scores": masks.mean((3, 4)), "masks": masks}


def test_masks_for_one_prompt_are_a_map():
    model = Prompted().eval()
    graph, x = slimseg.load(model, (8, 8)), torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(graph(x), model(x)["masks"][0])


def test_out_and_logits_are_preferred_where_they_are_maps():
    assert choose([Output("big", (1, 4, 64, 64)), Output("logits", (1, 4, 8, 8))])[0] == 1
    assert choose([Output("out", (1, 10)), Output("seg", (1, 4, 8, 8))])[0] == 1
    assert choose([Output("a", (1, 64, 64)), Output("b", (1, 4, 8, 8))])[0] == 1
    assert choose([Output("a", (1, 4, 8, 8)), Output("b", (1, 4, 8, 8))])[0] == 0
    assert choose([Output("only", (1, 10))]) == (0, None)
    with pytest.raises(ModelError, match="nothing that depends on the image"):
        choose([])


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    module = Two().eval()
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in module.named_parameters()]
    nodes = [
        helper.make_node("Conv", ["x", "body.weight", "body.bias"], ["body"], "body", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["body", "aux.weight", "aux.bias"], ["aux"], "aux", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["body", "main.weight", "main.bias"], ["main"], "main"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("aux", "main")]
    start = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *SIZE])
    path = tmp_path_factory.mktemp("onnx") / "two.onnx"
    graph = helper.make_graph(nodes, "two", [start], ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_onnx(onnx_file):
    assert "main is used" in slimseg.load(onnx_file).notes[0]
    assert slimseg.load(onnx_file, output="aux").shape(slimseg.load(onnx_file, output="aux").output)[1] == 5
    with pytest.raises(ModelError, match=r"two\.onnx has no output 'x': `output` can be one of aux .*, main"):
        slimseg.load(onnx_file, output="x")


@pytest.fixture(scope="module")
def tflite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one network, with the output of its layer before the last as its first output."""
    from slimseg.runtimes.litert.writing import writer

    path = tmp_path_factory.mktemp("tflite") / "two.tflite"
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(5, 4, 1))
    writer.write(slimseg.load(net, SIZE), path)
    model = file.parse(path.read_bytes(), path)
    graph = model.subgraphs[0]
    first = next(each for each in graph.operators if graph.tensors[each.outputs[0]].name == b"layer_0")
    graph.outputs = [int(first.outputs[0]), int(graph.outputs[0])]
    model.signatureDefs, model.metadata = [], []
    path.write_bytes(file.pack(model))
    return path


def test_tflite(tflite_file, tmp_path):
    graph = slimseg.load(tflite_file)
    coarse, fine = (info.name for info in file.read(tflite_file).outputs)
    assert f"{fine} is used" in graph.notes[-1]
    assert graph.shape(graph.output) == (1, 4, *SIZE)
    assert graph.source is None  # LiteRT hands out the other one
    chosen = slimseg.load(tflite_file, output=coarse)
    assert chosen.shape(chosen.output)[1] == 5
    assert chosen.source == tflite_file
    assert chosen_output(tflite_file)[0] == 1
    only = file.with_output(tflite_file.read_bytes(), 1)
    (tmp_path / "only.tflite").write_bytes(only)
    assert [info.name for info in file.read(tmp_path / "only.tflite").outputs] == [fine]
    with pytest.raises(ModelError, match=r"two\.tflite.* has no output '7'"):
        slimseg.load(tflite_file, output="7")


def test_evaluate_judges_the_output_that_segments(tflite_file, tmp_path, run):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for folder in (tmp_path / split / kind for split in ("train", "val") for kind in ("images", "masks")):
        folder.mkdir(parents=True)
        pixels = (255, (*SIZE, 3)) if folder.name == "images" else (4, SIZE)
        for number in range(2):
            Image.fromarray(random.integers(pixels[0], size=pixels[1], dtype=np.uint8)).save(folder / f"{number}.png")
    code, out, err = run("evaluate", str(tflite_file), "--data", str(tmp_path), "--json")
    assert code == 0, err
    assert '"class 3"' in out
    assert '"class 4"' not in out  # of the other output's five
    assert "is used" in err
    code, _, err = run("evaluate", str(tflite_file), "--data", str(tmp_path), "--output", "nonsense")
    assert code == 2
    assert "has no output 'nonsense'" in err


@pytest.mark.parametrize("command", ["profile", "diagnose", "slim", "quantize", "evaluate", "export"])
def test_every_command_takes_an_output(command, run):
    assert "--output" in run(command, "--help")[1]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("in_file", [False, True])
def test_other_precisions_open_in_float32(tmp_path, precision, in_file):
    torch.manual_seed(0)
    module = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Upsample(scale_factor=2.0))
        .to(precision)
        .eval()
    )
    source: object = module
    if in_file:
        source = tmp_path / "half.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (torch.zeros(1, 3, *SIZE, dtype=precision),))
            torch.export.save(program, source)
    graph = slimseg.load(source, None if in_file else SIZE)
    assert any("opened in float32" in note and str(precision).removeprefix("torch.") in note for note in graph.notes)
    assert {value.dtype for value in graph.module.parameters()} == {torch.float32}
    assert next(module.parameters()).dtype is precision  # the user's own stays as it is
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(graph(x), module.float()(x), rtol=1e-3, atol=1e-3)
