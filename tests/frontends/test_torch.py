"""nn.Modules in: whatever the spelling, the same graph with the same outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.errors import ModelError
from slimseg.frontends import torch as frontend
from slimseg.graph import ops
from slimseg.graph.graph import Graph

SIZE = (32, 32)


def run(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def image(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))


def loaded(module: nn.Module) -> Graph:
    """The module's graph, which gives the module's outputs."""
    module.eval()
    graph = slimseg.load(module, input_size=SIZE)
    torch.testing.assert_close(run(graph, image()), run(module, image()), atol=1e-4, rtol=1e-4)
    return graph


def classes(graph: Graph) -> list[str]:
    return [type(graph.layer(node)).__name__ if node.op == "call_module" else "opaque" for node in graph.layers()]


class Lambda(nn.Module):
    """A convolution, then a function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


class Functional(nn.Module):
    def __init__(self, source: nn.Conv2d, **settings: int) -> None:
        super().__init__()
        self.conv = nn.Module()
        self.conv.weight, self.conv.bias = source.weight, source.bias
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, self.conv.bias, **self.settings)


class Modular(nn.Module):
    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__()
        self.conv = source

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_functional_and_module_convolutions_give_one_graph(settings):
    source = nn.Conv2d(3, 8, 3, **settings)
    modular, functional = loaded(Modular(source)), loaded(Functional(source, **settings))
    assert str(modular.module.graph) == str(functional.module.graph)
    assert repr(modular.layer(modular.output)) == repr(functional.layer(functional.output))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution_with_named_padding(padding):
    assert classes(loaded(Modular(nn.Conv2d(3, 4, 3, padding=padding)))) == ["Conv2d"]


SPELLINGS = [
    (nn.ReLU(), F.relu, "ReLU"),
    (nn.ReLU(inplace=True), torch.relu, "ReLU"),
    (nn.ReLU6(), lambda x: x.clamp(0, 6), "ReLU6"),
    (nn.Hardswish(), F.hardswish, "Hardswish"),
    (nn.SiLU(inplace=True), F.silu, "SiLU"),
    (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2), "LeakyReLU"),
    (nn.GELU(), F.gelu, "GELU"),
    (nn.Sigmoid(), torch.sigmoid, "Sigmoid"),
    (nn.Softmax(1), lambda x: F.softmax(x, -3), "Softmax"),
    (nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), keepdim=True), "AdaptiveAvgPool2d"),
    (nn.MaxPool2d(2), lambda x: F.max_pool2d(x, 2), "MaxPool2d"),
    (nn.ZeroPad2d((1, 2, 0, 1)), lambda x: F.pad(x, (1, 2, 0, 1)), "Pad"),
    (nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, (64, 64)), "Resize"),
    (nn.UpsamplingBilinear2d(40), lambda x: F.interpolate(x, 40, mode="bilinear", align_corners=True), "Resize"),
    (nn.Dropout(), lambda x: F.dropout2d(x, training=False).contiguous().clone(), None),
]  # fmt: skip


@pytest.mark.parametrize(("module", "function", "name"), SPELLINGS, ids=lambda value: repr(value)[:20])
def test_module_and_functional_spellings_are_one(module, function, name):
    first, second = loaded(Lambda(module)), loaded(Lambda(function))
    assert classes(first) == classes(second) == ["Conv2d", *([name] if name else [])]
    assert [repr(first.layer(node)) for node in first.layers()][1:] == [
        repr(second.layer(node)) for node in second.layers()
    ][1:]


CANONICAL = [
    lambda x: x * F.relu6(x + 3) / 6,
    lambda x: 1 - x,
    lambda x: 2 * x - 0.5,
    lambda x: x / torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1),
    lambda x: x * torch.ones(1, 4, 1, 1).expand(1, 4, 1, 1).mul(2),
    lambda x: x + x.mean((2, 3), keepdim=True).expand(-1, -1, 32, 32),
    lambda x: x.reshape(x.shape),
    lambda x: x[:, 1:3, 2:, :-3],
    lambda x: x.argmax(1),
    lambda x: torch.cat([x, x], 1),
    lambda x: torch.maximum(x, -x) - torch.minimum(x, x.exp()) / (x.abs() + 1),
    lambda x: x.pow(2) * (x * x + 1).sqrt(),
    lambda x: x.amax(1, keepdim=True) + x.sum(1, keepdim=True) + x.mean((2, 3)).reshape(1, 4, 1, 1),
    lambda x: torch.cat([part * (index + 1) for index, part in enumerate(x.chunk(2, 1))], 1),
    lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    lambda x: x.reshape(1, 2, 2, 32, 32).transpose(1, 2).reshape(1, 4, 32, 32),
    lambda x: x.permute(0, 2, 3, 1).flatten(1, 2).softmax(-1).transpose(1, 2).unflatten(2, (32, 32)),
    lambda x: x[:, ::2, 1::3],
    lambda x: torch.cat([x.narrow(1, 2, 2), x.narrow(-3, -4, 2)], 1) * x.narrow(2, 0, 32),
    lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(1),
]


@pytest.mark.parametrize("function", CANONICAL)
def test_arithmetic_is_canonical(function):
    assert "opaque" not in classes(loaded(Lambda(function)))


COUNTED_FROM_THE_END = [
    lambda x: torch.cat([x, 2 * x], -1),
    lambda x: torch.cat([x, 2 * x], dim=-3),
    lambda x: x.softmax(-2),
    lambda x: x.argmax(-3),
    lambda x: x.mean(-1, keepdim=True) * x.amax((-1, -2), keepdim=True) + x.sum(-3, keepdim=True),
    lambda x: torch.cat(x.split([2, 30], -1)[::-1], -1),
    lambda x: x.chunk(2, -3)[1].narrow(-1, -3, 2),
    lambda x: x[..., -5:].transpose(-1, -2),
    lambda x: x[..., 1::2].permute(0, -3, -1, -2),
    lambda x: x[:, -100:, 3:100, -100:-2],  # beyond the ends, as Python allows
    lambda x: x.mean(-3, keepdim=True).squeeze(-3).unsqueeze(-3).flatten(-2).unsqueeze(-1),
]


@pytest.mark.parametrize("function", COUNTED_FROM_THE_END)
def test_dimensions_counted_from_the_end(function):
    graph = loaded(Lambda(function))
    assert "opaque" not in classes(graph)
    assert graph.shape(graph.output) == run(graph, image()).shape


def relu_under_another_name(x: Tensor) -> Tensor:
    y = F.dropout(x, training=False)
    y.relu_()
    return x + y


def relu_of_a_copy(x: Tensor) -> Tensor:
    y = x.clone()
    y.relu_()
    return x - 1 + y


def accumulate(x: Tensor) -> Tensor:
    x += 1
    x.mul_(2)
    return x + x.relu_()


def accumulate_on_a_view(x: Tensor) -> Tensor:
    y = x.view(1, 2, 2, 32, 32).transpose(1, 2).flatten(1, 2)
    before = y * 3
    y += y.relu()
    y += before
    return y


def accumulate_after_reading_parts(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    product = first * second
    x += 1
    return x[:, 2:] * product


IN_PLACE = [relu_under_another_name, relu_of_a_copy, accumulate, accumulate_on_a_view, accumulate_after_reading_parts]


@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_calls_are_followed_without_rewriting_the_program(function, monkeypatch):
    monkeypatch.setattr(frontend, "_functional", None)
    assert "opaque" not in classes(loaded(Lambda(function)))


def read_a_part_afterwards(x: Tensor) -> Tensor:
    part, _ = x.chunk(2, 1)
    x += 1
    return part * 2


def read_the_whole_after_a_view(x: Tensor) -> Tensor:
    y = x.view(1, 4, -1)
    y += 1
    return x * 2


@pytest.mark.parametrize("function", [read_a_part_afterwards, read_the_whole_after_a_view])
def test_in_place_calls_that_change_another_view_that_is_read_afterwards(function):
    assert "opaque" not in classes(loaded(Lambda(function)))


def write_into_a_part(x: Tensor) -> Tensor:
    x[:, :2] += 1
    return x


def test_writing_into_a_part_in_place_is_followed():
    assert "opaque" not in classes(loaded(Lambda(write_into_a_part)))


def test_writing_into_a_part_in_place_is_refused_from_a_file(tmp_path):
    with torch.no_grad():
        torch.export.save(torch.export.export(Lambda(write_into_a_part).eval(), (image(),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"in place \(add\).*write x = x \+ y"):
        slimseg.load(tmp_path / "net.pt2")


class Shared(nn.Module):
    """One layer called twice, and one weight under two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(F.relu(self.twice(self.first(x))))
        return F.conv2d(x, self.twice.weight, self.bias, padding=1)


def test_shared_weights_stay_shared():
    module = Shared()
    graph = loaded(module)
    convolutions = [node for node in graph.layers() if graph.layer_as(node, nn.Conv2d)]
    assert len({node.target for node in convolutions}) == 3
    assert convolutions[1].target == convolutions[2].target
    wanted = sum(each.numel() for each in module.parameters())
    assert sum(each.numel() for each in graph.module.parameters()) == wanted
    assert sum(each.numel() for each in graph.copy().module.parameters()) == wanted


class Outputs(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, 2, 1), wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.conv(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"aux": y + 1, "out": y},
        lambda y: {"logits": y, "loss": y.sum()},
        lambda y: (y, y + 1),
        lambda y: [(y,)],
    ],
)
def test_mappings_and_tuples_give_their_main_tensor(wrap):
    module = Outputs(wrap).eval()
    graph = slimseg.load(module, SIZE)
    assert torch.equal(run(graph, image()), run(module.conv, image()))


@pytest.mark.parametrize("wrap", [lambda y: None, lambda y: {}, lambda y: y.mean((1, 2, 3)), lambda y: y.flatten(1)])
def test_outputs_that_are_no_map_are_refused(wrap):
    with pytest.raises(ModelError):
        slimseg.load(Outputs(wrap), SIZE)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_computed_weight_is_computed_once():
    assert classes(loaded(WeightNorm())) == ["Conv2d"]


def test_batch_norm_is_a_module_and_the_graph_is_trainable():
    module = Norm().train()
    graph = loaded(module)
    assert classes(graph) == ["Conv2d", "BatchNorm2d"]
    graph.module.train()
    graph(torch.randn(2, 3, *SIZE)).square().mean().backward()
    assert all(each.grad is not None for each in graph.module.parameters())
    assert all(each.grad is None for each in module.parameters()), "the original is left alone"


def test_loading_leaves_the_mode_of_the_module():
    module = Norm().train()
    slimseg.load(module, SIZE)
    assert module.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs an input size"),
        ({"input_size": (4, 32)}, "between 8 and 8192"),
        ({"input_size": SIZE, "std": 0}, "is not positive"),
        ({"input_size": SIZE, "mean": (1, 2)}, "needs 1 or 3 values"),
        ({"input_size": SIZE, "channel_order": "hsv"}, "channel order"),
        ({"input_size": SIZE, "output_kind": "boxes"}, "output kind"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ModelError, match=message):
        slimseg.load(Norm(), **arguments)


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_data_dependent_control_flow_is_refused_in_a_sentence():
    with pytest.raises(ModelError, match="cannot be traced at 32x32") as caught:
        slimseg.load(DataDependent(), SIZE)
    assert "\n" not in str(caught.value)


def scaled(model: nn.Module) -> nn.Module:
    """Random weights under which signals keep their size, so that a comparison means something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def mobilenet() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    return MobileNetV2ForSemanticSegmentation(MobileNetV2Config(num_labels=5, depth_multiplier=0.35, image_size=64))


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=5, depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16)
    )


def mobilevit() -> nn.Module:
    from transformers import MobileViTConfig, MobileViTForSemanticSegmentation

    sizes = [8, 8, 16, 16, 24, 24, 32]
    return MobileViTForSemanticSegmentation(
        MobileViTConfig(
            num_labels=5, hidden_sizes=[16, 24, 32], neck_hidden_sizes=sizes, image_size=64, aspp_out_channels=16
        )
    )


@pytest.mark.filterwarnings("ignore")  # transformers and what it imports deprecate things of each other
@pytest.mark.parametrize(("build", "opaque"), [(mobilenet, False), (segformer, False), (mobilevit, False)])
def test_transformers_architectures(build, opaque, tmp_path):
    pytest.importorskip("transformers")
    model = scaled(build())
    graph = slimseg.load(model, (64, 64))
    expected = run(lambda x: model(x).logits, image((64, 64)))
    torch.testing.assert_close(run(graph, image((64, 64))), expected, atol=1e-4, rtol=1e-4)
    assert bool(graph.opaque()) is opaque
    assert all(graph.shape(node) for node in graph.layers())
    if not opaque:
        from slimseg.runtimes.litert import session
        from slimseg.runtimes.litert.writing import writer

        writer.write(graph, tmp_path / "m.tflite")
        got = session.Session(tmp_path / "m.tflite").run(image((64, 64)).permute(0, 2, 3, 1).numpy())
        torch.testing.assert_close(torch.from_numpy(got).permute(0, 3, 1, 2), expected, atol=1e-3, rtol=1e-3)


def test_constants_per_channel_become_one_layer():
    graph = loaded(Lambda(lambda x: (x - 0.5) * 4))
    affine = graph.layer_as(graph.output, ops.Affine)
    assert affine is not None
    assert affine.scale.item() == 4


class ChannelsLastNetwork(nn.Module):
    """Takes and returns (N, height, width, channels), as networks ported from TensorFlow do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.permute(0, 3, 1, 2)).relu()).permute(0, 2, 3, 1)


def test_a_module_of_channels_last_images() -> None:
    network = ChannelsLastNetwork().eval()
    graph = slimseg.load(network, (8, 10))
    assert [node.name for node in graph.layers()] == ["first", "first_relu", "second"]
    assert "it takes images as (1, height, width, 3)" in graph.notes
    assert graph.source_check.relative_difference < 1e-5
    image = torch.randn(2, 3, 8, 10)
    with torch.no_grad():
        torch.testing.assert_close(graph(image), network(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
