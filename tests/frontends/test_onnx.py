"""Whole networks from ONNX: equal to onnxruntime, trainable, writable, and named as their authors named them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper
from onnx_files import difference, image, kinds, node, reference, weights, write
from onnx_zoo import NETWORKS, export
from PIL import Image
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.onnx import from_file
from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing.writer import write as write_tflite


@pytest.fixture(scope="module")
def prisma(shared: Path) -> Path:
    return shared / "models" / "prisma_nchw.onnx"


def portraits(shared: Path) -> torch.Tensor:
    paths = sorted((shared / "portraits" / "val" / "images").iterdir())[:4]
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((256, 256))) for path in paths]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def lite(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What a `.tflite` gives for an NCHW image, as NCHW."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).numpy())
    interpreter.invoke()
    result = torch.from_numpy(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    return result.permute(0, 3, 1, 2) if result.ndim == 4 else result


def test_prisma_equals_onnxruntime_on_portraits(prisma: Path, shared: Path):
    graph = from_file(prisma)
    for x in portraits(shared).split(1):
        with torch.no_grad():
            assert (graph(x) - reference(prisma, x)).abs().max() < 1e-4
    assert graph.input_shape == (1, 3, 256, 256)
    assert graph.description.output_kind == "probabilities"


def test_prisma_keeps_its_layers_names(prisma: Path):
    names = {layer.name for layer in from_file(prisma).layers()}
    assert {"conv2d_11", "activation_93_Relu", "conv2d_transpose_15", "add_55_add"} <= names


def test_prisma_is_written_as_an_equal_mobile_file(prisma: Path, shared: Path, tmp_path: Path):
    graph, path = from_file(prisma), tmp_path / "prisma.tflite"
    write_tflite(graph, path)
    for x in portraits(shared).split(1):
        assert (lite(path, x) - reference(prisma, x)).abs().max() < 1e-4


def test_prisma_has_the_operators_of_its_mobile_file(prisma: Path, shared: Path, tmp_path: Path):
    """No transposes, no padding of its own: not slower than the file that was made by Google's converter."""
    path = tmp_path / "prisma.tflite"
    write_tflite(from_file(prisma), path)
    ours, theirs = operators(path), operators(shared / "models" / "prisma-net.tflite")
    assert len(ours) <= len(theirs)
    assert "TRANSPOSE" not in ours


def operators(path: Path) -> list[str]:
    with_delegate = Interpreter(str(path), num_threads=1)
    return [each["op_name"] for each in with_delegate._get_ops_details() if each["op_name"] != "DELEGATE"]


def test_prisma_trains(prisma: Path, shared: Path):
    graph = from_file(prisma)
    loss = graph(portraits(shared)).mean()
    loss.backward()
    gradients = {name: value.grad for name, value in graph.module.named_parameters()}
    assert len(gradients) > 150
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_zoo_equals_onnxruntime_and_is_writable(name: str, opset: int, tmp_path: Path):
    path, mobile = tmp_path / "network.onnx", tmp_path / "network.tflite"
    export(name, path, opset)
    graph = from_file(path)
    x = image(graph)
    with torch.no_grad():
        ours = graph(x)
    theirs = reference(path, x).reshape(ours.shape)
    assert agree(ours, theirs)
    assert "Transpose" not in kinds(graph)
    write_tflite(graph, mobile)
    assert agree(lite(mobile, x).reshape(ours.shape), theirs)


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if not theirs.is_floating_point():
        return bool((ours == theirs).float().mean() > 0.999)
    return bool((ours - theirs).abs().max() < 1e-4)


def test_zoo_is_said_in_the_vocabulary_as_torch_says_it(tmp_path: Path):
    export("mobilenet", tmp_path / "m.onnx", 11)
    graph = from_file(tmp_path / "m.onnx")
    assert {"Hardswish", "Hardsigmoid", "Linear", "AdaptiveAvgPool2d", "Resize"} <= set(kinds(graph))
    assert "Clip" not in kinds(graph)
    assert graph.node("stem_0")
    export("unet", tmp_path / "u.onnx", 17)
    unet = from_file(tmp_path / "u.onnx")
    assert {"GELU", "SiLU", "PReLU", "ConvTranspose2d", "DepthToSpace"} <= set(kinds(unet))
    assert unet.description.output_kind == "probabilities"
    assert unet.shape(unet.output) == (1, 1, 64, 64)  # the squeeze behind the map is left out
    export("deeplab", tmp_path / "d.onnx", 17)
    assert from_file(tmp_path / "d.onnx").description.output_kind == "mask"


def test_open_size_needs_one_and_takes_any(tmp_path: Path):
    path = tmp_path / "free.onnx"
    export("mobilenet", path, 17, free_size=True)
    with pytest.raises(ModelError, match="`input_size`"):
        from_file(path)
    for size in ((64, 96), (65, 97)):
        graph = from_file(path, size)
        assert graph.input_shape == (1, 3, *size)
        assert difference(path, graph) < 1e-4


def nhwc_network(path: Path, flat: bool) -> Path:
    """As tf2onnx writes Keras: transposes at both ends, gates and biases in either order."""
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node(
            "Conv",
            "a w1",
            "b",
            kernel_shape=[3, 3],
            strides=[2, 2],
            auto_pad="SAME_UPPER",
            node_name="net/conv1/Conv2D",
        ),
        node("Add", "b bias", "c"),
        node("PRelu", "c slope", "d"),
        node("GlobalAveragePool", "d", "e"),
        node("Reshape", "e flat", "f"),
        node("MatMul", "f w2", "g"),
        node("Sigmoid", "g", "h"),
        node("Reshape", "h four", "i"),
        node("Transpose", "d", "j", perm=[0, 2, 3, 1]),
        node("Mul", "j i", "k"),
        node("Concat", "k j", "l", axis=3),
        node("Transpose", "l", "m", perm=[0, 3, 1, 2]),
        node("ConvTranspose", "m w3", "n", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        node("Transpose", "n", "o", perm=[0, 2, 3, 1]),
        node("Softmax", "o", "p", axis=-1),
        node("Slice", "p one two three", "q") if flat else node("Identity", "p", "y"),
        *([node("Reshape", "q last", "y")] if flat else []),
    ]
    values = {"w1": weights(8, 3, 3, 3), "bias": weights(1, 8, 1, 1), "slope": weights(8, 1, 1), "w2": weights(8, 8),
              "w3": weights(16, 2, 3, 3), "flat": np.array([-1, 8]), "four": np.array([-1, 1, 1, 8]),
              "one": np.array([1]), "two": np.array([2]), "three": np.array([3]),
              "last": np.array([-1, 32 * 24])}  # fmt: skip
    return write(path, nodes, values, ("unk__1", 32, 24, 3))


@pytest.mark.parametrize("flat", [False, True])
def test_nhwc_becomes_nchw_without_transposes(flat: bool, tmp_path: Path):
    path = nhwc_network(tmp_path / "nhwc.onnx", flat)
    graph = from_file(path)
    assert graph.input_shape == (1, 3, 32, 24)
    assert graph.shape(graph.output) == ((1, 32 * 24) if flat else (1, 2, 32, 24))
    assert "Transpose" not in kinds(graph)
    assert any("NHWC" in note for note in graph.notes)
    assert graph.node("net_conv1_Conv2D")
    assert difference(path, graph) < 1e-5


@pytest.mark.parametrize("last", ["INT64", "INT32", "UINT8", "FLOAT"])
def test_a_mask_has_no_channel(last: str, tmp_path: Path):
    nodes = [node("ArgMax", "x", "a", axis=1), node("Cast", "a", to=getattr(TensorProto, last))]
    path = write(tmp_path / "mask.onnx", nodes, output_kind=getattr(TensorProto, last))
    graph = from_file(path)
    assert graph.shape(graph.output) == (1, 8, 8)
    assert graph.description.output_kind == "mask"
    x = image(graph)
    assert torch.equal(graph(x).long(), reference(path, x)[:, 0].long())


def test_a_shared_convolution_is_not_reordered_for_one_of_its_uses(tmp_path: Path):
    shuffle = {"blocksize": 2, "mode": "CRD"}
    for first, second in (("CRD", "DCR"), ("DCR", "CRD")):
        nodes = [
            node("Conv", "x w", "a"),
            node("DepthToSpace", "a", "b", **{**shuffle, "mode": first}),
            node("Conv", "x w", "c"),
            node("DepthToSpace", "c", "d", **{**shuffle, "mode": second}),
            node("Sub", "b d"),
        ]
        path = write(tmp_path / "shared.onnx", nodes, {"w": weights(12, 4, 3, 3)})
        assert difference(path) < 1e-4


def test_rows_of_pixels_come_back_as_a_map(tmp_path: Path):
    """Keras flattens pixels for softmax and folds them up again: still NHWC, still no transposes."""
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 3, 1]),
        node("Reshape", "c rows", "d"),
        node("Softmax", "d", "e", axis=-1),
        node("Reshape", "e map", "y"),
    ]
    values = {"w": weights(2, 3, 1, 1), "rows": np.array([-1, 2]), "map": np.array([1, 6, 8, 2])}
    path = write(tmp_path / "rows.onnx", nodes, values, (1, 6, 8, 3))
    graph = from_file(path)
    assert kinds(graph) == ["Conv2d", "Reshape", "Softmax", "Reshape"]
    assert graph.shape(graph.output) == (1, 2, 6, 8)
    assert difference(path, graph) < 1e-5


def test_several_outputs_are_noted(tmp_path: Path):
    nodes = [node("Relu", "x", "y"), node("Sigmoid", "x", "aux")]
    graph = from_file(write(tmp_path / "two.onnx", nodes, outputs=("y", "aux")))
    assert kinds(graph) == ["ReLU"]
    assert any("2 outputs" in note and "y is used" in note for note in graph.notes)


def test_half_precision_is_computed_in_full(tmp_path: Path):
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a s s s s")]
    values = {"w": weights(4, 4, 3, 3).astype(np.float16), "s": np.abs(weights(4)).astype(np.float16)}
    kind = TensorProto.FLOAT16
    path = write(tmp_path / "half.onnx", nodes, values, kind=kind, output_kind=kind)
    graph = from_file(path)
    assert all(value.dtype == torch.float32 for value in graph.module.parameters())
    assert difference(path, graph) < 0.05


def test_bytes_in_mean_no_preprocessing(tmp_path: Path):
    nodes = [node("Cast", "x", "a", to=TensorProto.FLOAT), node("Conv", "a w")]
    path = write(tmp_path / "bytes.onnx", nodes, {"w": weights(2, 3, 3, 3)}, (1, 3, 8, 8), kind=TensorProto.UINT8)
    assert from_file(path).description.preprocessing.std == (1.0, 1.0, 1.0)


def test_quantised_file_opens_as_float(tmp_path: Path):
    """The ReLU that the quantiser took away, because numbers end at zero there, is put back."""
    values = {"q": np.random.default_rng(3).integers(-127, 127, (4, 4, 3, 3)).astype(np.int8), "zero": np.int8(0),
              "s": np.float32(0.01), "t": np.float32(0.02), "low": np.uint8(0)}  # fmt: skip
    nodes = [
        node("DequantizeLinear", "q s zero", "w"),
        node("Conv", "x w", "a"),
        node("QuantizeLinear", "a t low", "b"),
        node("DequantizeLinear", "b t low"),
    ]
    constants = {name: np.asarray(value) for name, value in values.items()}
    path = write(tmp_path / "int8.onnx", nodes, constants)
    graph = from_file(path)
    assert kinds(graph) == ["Conv2d", "ReLU"]
    assert any("quantised" in note for note in graph.notes)
    assert graph.shape(graph.output) == (1, 4, 6, 6)
    convolution = graph.layer_as(graph.node("a"), nn.Conv2d)
    assert convolution is not None
    assert torch.allclose(convolution.weight, torch.from_numpy(values["q"] * np.float32(0.01)))


def test_weights_used_twice_stay_one_module(tmp_path: Path):
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("Relu", "a", "b"), node("Conv", "b w", pads=[1] * 4)]
    path = write(tmp_path / "shared.onnx", nodes, {"w": weights(4, 4, 3, 3)})
    graph = from_file(path)
    assert len(list(graph.module.parameters())) == 1
    assert difference(path, graph) < 1e-4


def external(tmp_path: Path) -> tuple[Path, onnx.ModelProto]:
    path = write(tmp_path / "outside.onnx", [node("Conv", "x w", kernel_shape=[3, 3])], {"w": weights(4, 4, 3, 3)})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="outside.onnx.data", size_threshold=0)
    return path, onnx.load(path, load_external_data=False)


def test_values_beside_the_file_are_read(tmp_path: Path):
    path, _ = external(tmp_path)
    assert difference(path) < 1e-5
    (tmp_path / "outside.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"outside\.onnx\.data, which is missing"):
        from_file(path)


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "a/../b", "..", "", "c:d"])
def test_values_anywhere_else_are_not(location: str, tmp_path: Path):
    path, model = external(tmp_path)
    (tmp_path.parent / "secret").write_bytes(b"\0" * 576)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="not a file beside it"):
        from_file(path)


def test_a_link_to_values_elsewhere_is_not_followed(tmp_path: Path):
    path, _ = external(tmp_path)
    data = tmp_path / "outside.onnx.data"
    moved = data.rename(tmp_path / "elsewhere")
    data.symlink_to(moved)
    with pytest.raises(ModelError, match="not a file beside it"):
        from_file(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((8, 3, 8, 8), "8 images at a time"), ((1, 3, 8), "not one"), (("n", "c", 8, 8), "channels")],
)
def test_what_is_no_single_image_is_refused(shape: tuple[int | str, ...], message: str, tmp_path: Path):
    with pytest.raises(ModelError, match=message):
        from_file(write(tmp_path / "odd.onnx", [node("Relu", "x")], shape=shape))


def test_two_inputs_are_refused(tmp_path: Path):
    path = write(tmp_path / "two.onnx", [node("Add", "x z")])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 8, 8]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="2 inputs"):
        from_file(path)


def test_pixel_shuffle_permutes_the_convolution_before(tmp_path: Path):
    export("unet", tmp_path / "u.onnx", 17)
    graph = from_file(tmp_path / "u.onnx")
    shuffle = next(layer for layer in graph.layers() if isinstance(graph.layer(layer), ops.DepthToSpace))
    assert isinstance(graph.layer(shuffle.all_input_nodes[0]), nn.Conv2d)
    assert shuffle.all_input_nodes[0].name == "up2"


def test_opening_leaves_a_legal_trainable_graph(tmp_path: Path):
    export("mobilenet", tmp_path / "m.onnx", 17)
    graph: Graph = from_file(tmp_path / "m.onnx")
    graph(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert all(value.grad is not None for value in graph.module.parameters())
    graph.copy().refresh()
