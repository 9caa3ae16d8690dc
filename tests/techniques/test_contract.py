"""What every technique promises, over graphs that hold its sites in every form."""

from __future__ import annotations

import copy
import inspect
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg import techniques
from slimseg.blocks.convolution import ConvNorm
from slimseg.blocks.residual import BasicBlock
from slimseg.deployment import Deployment
from slimseg.errors import Unsupported
from slimseg.graph import edit, invariants, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.pricing import whatif
from slimseg.techniques import APPROXIMATE, DIAGNOSED, EXACT, Found, Settings, Site, Technique, named
from slimseg.training import distil

SIZE = (64, 96)
NEEDS = ("nothing", "images", "labels")


def activated(channels: int) -> list[nn.Module]:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return [norm, nn.ReLU()]


class Network(nn.Module):
    """Encoder with every kind of convolution, decoder with transposed ones; the head comes last."""

    def __init__(self, *head: nn.Module, bias: bool = True, classes: int = 5) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=bias), *activated(8),
            nn.Conv2d(8, 16, 5, 2, 2, bias=bias), *activated(16),
            nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=bias), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=bias),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=bias),
        )  # fmt: skip
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=bias)
        self.relu, self.concat = nn.ReLU(), ops.Concat()
        self.skip = nn.Conv2d(3, 8, (3, 1), 2, (1, 0))
        self.grouped = nn.ConvTranspose2d(16, 8, 2, 2, groups=2, bias=bias)
        self.classifier = nn.Conv2d(8, classes, 1)
        self.head = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shared(self.relu(self.shared(self.encoder(x))))
        y = self.concat(self.relu(self.up(y)), self.skip(x))
        return self.head(self.classifier(self.grouped(y)))


class Odd(nn.Module):
    """Channels that are no multiple of 8, and every activation that is not linear in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Hardswish(),
            nn.Conv2d(12, 20, 3, 2, 1), nn.PReLU(20),
            nn.Conv2d(20, 20, 3, 1, 1, groups=20, bias=False), *activated(20), nn.Conv2d(20, 16, 1, bias=False),
            nn.SiLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.GELU(), nn.Conv2d(16, 16, 1), nn.Tanh(),
        )  # fmt: skip
        self.swish, self.multiply = nn.Sigmoid(), ops.Multiply()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ELU(), nn.Conv2d(4, 16, 1))
        self.gate, self.multiply_gate = nn.Sigmoid(), ops.Multiply()
        self.up = nn.ConvTranspose2d(16, 12, 3, 2, 1)
        self.last = nn.Sequential(nn.LeakyReLU(), nn.Conv2d(12, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        y = self.multiply(y, self.swish(y))
        return self.last(self.up(self.multiply_gate(y, self.gate(self.squeeze(y)))))


def graph(module: nn.Module, kind: str = "logits", size: tuple[int, int] = SIZE) -> Graph:
    torch.manual_seed(0)
    result = edit.trace(module.eval(), (1, 3, *size), "net")
    result.description = Description(output_kind=kind)  # type: ignore[arg-type]
    return result


def late_resize() -> Graph:
    return graph(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), ops.Resize(SIZE), nn.Conv2d(8, 2, 1), nn.Softmax(1), ops.Slice(1, 1, 2)
        ),
        "probabilities",
    )


class Converted(nn.Module):
    """What converters leave behind: spelled activations, layers that undo each other, duplicates, biases apart."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = ops.Affine(torch.tensor(2.0), torch.tensor(-1.0))
        self.stem = nn.Conv2d(3, 8, 2, 2, bias=False)
        self.bias, self.slopes = ops.Affine(None, torch.randn(8, 1, 1)), nn.PReLU(8)
        self.same_slopes, self.zero_slopes = nn.PReLU(8, 0.1), nn.PReLU(8, 0.0)
        self.three, self.clip = ops.Affine(None, torch.tensor(3.0)), nn.ReLU6()
        self.gate, self.sixth = ops.Multiply(), ops.Affine(torch.tensor(1 / 6), None)
        self.low, self.high = nn.Hardtanh(0.0, 100.0), nn.Hardtanh(-1.0, 6.0)
        self.there, self.back = ops.Transpose((0, 2, 3, 1)), ops.Transpose((0, 3, 1, 2))
        self.pads = nn.Sequential(ops.Pad((1, 0, 0, 1)), ops.Pad((0, 1, 1, 0)))
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)
        self.twin = nn.Conv2d(8, 6, 1)
        self.other_twin = copy.deepcopy(self.twin)
        self.join, self.cut = ops.Concat(1), ops.Slice(1, 2, 5)
        self.wide, self.nothing, self.add = nn.Conv2d(12, 8, 1), ops.Affine(torch.tensor(0.0), None), ops.Add()
        self.norm = activated(3)[0]
        self.last = nn.Conv2d(3, 4, 1)
        self.relu, self.pool, self.again = nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.bias(self.stem(self.normalise(x))))
        x = self.sixth(self.gate(x, self.clip(self.three(x))))
        x = self.same_slopes(self.back(self.there(x)))
        x = self.pointwise(self.depthwise(self.pads(x)))
        x = self.high(self.low(self.zero_slopes(x)))
        y = self.wide(self.join(self.twin(x), self.other_twin(x)))
        y = self.add(self.nothing(y), y)
        y = self.again(self.pool(self.relu(self.cut(y))))
        return self.last(self.norm(y))


def spread() -> Graph:
    """Few channels on many pixels, and depth to space in the middle."""
    slopes = nn.PReLU(4)
    nn.init.uniform_(slopes.weight)
    norm = activated(4)[0]
    return graph(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, 4, 1), ops.DepthToSpace(2), slopes, nn.Conv2d(4, 4, 1), norm, ops.DepthToSpace(2),
            ops.Affine(torch.tensor(3.0), torch.randn(1, 1, 1)), nn.Conv2d(1, 2, 3, padding=1),
        )
    )  # fmt: skip


class FewChannels(nn.Module):
    """A residual stage of depthwise convolutions, the stage's input read behind it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), activated(6)[0]
        self.first, self.point = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 1)
        self.slopes, self.second = nn.PReLU(6, 0.3), nn.Conv2d(6, 6, (5, 3), padding=(2, 1), groups=6, bias=False)
        self.add, self.skip = ops.Add(), ops.Add()
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        y = self.add(x, self.second(self.slopes(self.point(self.first(x)))))
        return self.last(self.skip(x, y))


def two_classes_up() -> Graph:
    """Two classes out of a transposed convolution with its bias apart, a resize behind, flattened."""
    up = ops.CroppedConvTranspose2d(8, 2, 3, 2, bias=False, crop=(0, 1, 0, 1))
    bias = ops.Affine(None, torch.randn(2, 1, 1))
    return graph(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), up, bias, ops.Resize((128, 192)), nn.Softmax(1), ops.Slice(1, 1, 2),
            ops.Reshape((1, 128 * 192)),
        ),
        "probabilities",
    )  # fmt: skip


def every_transposed() -> Graph:
    return graph(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, 8, 1), nn.ConvTranspose2d(6, 4, 3, 2, 1, 1), *activated(4),
            nn.ConvTranspose2d(4, 5, 3, padding=1), nn.PReLU(5), nn.ConvTranspose2d(5, 3, 2, 2), nn.Sigmoid(),
            nn.ConvTranspose2d(3, 3, 5, 2, 2, 1, groups=3), nn.ConvTranspose2d(3, 2, 3, (2, 1), 1),
        )
    )  # fmt: skip


class DeepLab(nn.Module):
    """A stage whose stride became dilation, ASPP on one source, a skip that is concatenated, resized classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), *activated(8))
        self.deeper = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), *activated(16))
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 2, 2, bias=False), *activated(16), nn.Conv2d(16, 16, 1))
        self.add = ops.Add()
        rates = [nn.Sequential(nn.Conv2d(16, 8, 3, 1, rate, rate), *activated(8)) for rate in (3, 6)]
        self.branches = nn.ModuleList([nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU()), *rates])
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), ops.Resize((16, 24)))
        self.join, self.mix = ops.Concat(), nn.Sequential(nn.Conv2d(32, 8, 1, bias=False), *activated(8))
        self.up, self.join_skip = ops.Resize((32, 48)), ops.Concat()
        self.decode = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1), ops.Resize(SIZE))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x)
        y = self.deeper(skip)
        y = self.add(y, self.block(y))
        y = self.mix(self.join(*(branch(y) for branch in self.branches), self.mean(y)))
        return self.decode(self.join_skip(self.up(y), skip))


class Pyramid(nn.Module):
    """Three scales with swishes and groups, brought to one size and mixed by a 1x1 behind a nearest and a bilinear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, groups=4), nn.BatchNorm2d(16), nn.Hardswish())
        self.third = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1, groups=2), nn.GELU())
        self.up2, self.up3, self.up3_again = (ops.Resize((32, 48)) for _ in range(3))
        self.also = nn.Conv2d(16, 4, 1, 2)
        self.up1 = ops.Resize(SIZE, "nearest")
        self.join, self.mix = ops.Concat(), nn.Conv2d(8 + 16 + 24 + 4, 8, 1)
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        joined = self.join(first, self.up2(second), self.up3(self.third(second)), self.up3_again(self.also(second)))
        return self.last(self.up1(self.mix(joined)))


class Transformer(nn.Module):
    """Patches with a layer norm, attention, feed-forward layers, an all-MLP head of two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 7, 4, 3), self.layer_norm(16)
        self.norm1, self.queries, self.reduced = self.layer_norm(16), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 2, 2)
        self.both, self.keys, self.values = nn.Conv2d(16, 32, 1), ops.Slice(1, 0, 16), ops.Slice(1, 16, 32)
        self.attention, self.project, self.attended = ops.Attention(4, 0.5), nn.Conv2d(16, 16, 1), ops.Add()
        self.norm2, self.wide, self.gelu = self.layer_norm(16), nn.Conv2d(16, 32, 1), nn.GELU()
        self.narrow, self.add = nn.Conv2d(32, 16, 1), ops.Add()
        self.norm3, self.merge = self.layer_norm(16), nn.Conv2d(16, 24, 3, 2, 1)
        self.first, self.second, self.up = nn.Conv2d(16, 8, 1), nn.Conv2d(24, 8, 1), ops.Resize((16, 24))
        self.join, self.fuse = ops.Concat(), nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), *activated(8))
        self.classifier = nn.Conv2d(8, 4, 1)

    @staticmethod
    def layer_norm(channels: int) -> nn.Module:
        affine = ops.Affine(torch.rand(channels, 1, 1) + 0.5, torch.randn(channels, 1, 1))
        return nn.Sequential(ops.Normalise((1,), 1e-5), affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x))
        y = self.norm1(x)
        both = self.both(self.reduced(y))
        y = self.attention(self.queries(y), self.keys(both), self.values(both))
        x = self.attended(x, self.project(y))
        x = self.norm3(self.add(x, self.narrow(self.gelu(self.wide(self.norm2(x))))))
        return self.classifier(self.fuse(self.join(self.first(x), self.up(self.second(self.merge(x))))))


GRAPHS = {
    "transformer": lambda: graph(Transformer()),
    "stages": lambda: stages(),
    "deeplab": lambda: graph(DeepLab()),
    "pyramid": lambda: graph(Pyramid()),
    "as converted": lambda: graph(Converted()),
    "depth to space": spread,
    "few channels": lambda: graph(FewChannels()),
    "two classes from a transposed convolution": two_classes_up,
    "every transposed convolution": every_transposed,
    "both classes": lambda: graph(Network(nn.Softmax(1), classes=2), "probabilities"),
    "mask, resized": lambda: graph(Network(ops.Resize((128, 192), "nearest"), ops.ArgMax()), "mask"),
    "mask, resized bilinearly": lambda: graph(Network(ops.Resize((128, 192)), ops.ArgMax()), "mask"),
    "logits": lambda: graph(Network()),
    "without bias": lambda: graph(Network(bias=False)),
    "final resize": lambda: graph(Network(ops.Resize((128, 192)))),
    "probabilities": lambda: graph(Network(nn.Softmax(1)), "probabilities"),
    "mask": lambda: graph(Network(nn.Softmax(1), ops.ArgMax()), "mask"),
    "two classes": lambda: graph(Network(nn.Softmax(1), ops.Slice(1, 0, 1), classes=2), "probabilities"),
    "resize before the classifier": late_resize,
    "odd": lambda: graph(Odd(), "probabilities", (129, 193)),
}
# Of what `Network` consists of.
NETWORK = (
    "fewer groups", "transposed convolution to depth to space", "transposed convolution to resize",
    "separable convolution", "full resolution", "convolution without dilation", "channels left out",
)  # fmt: skip
# Which techniques have sites in which graph: so no test passes because there is nothing to test.
SITES = {
    "transformer": (
        "merged linear layers", "sum instead of concatenation", "constants per row", "separable convolution",
        "linear activation", "hard-swish instead of GELU or swish", "batch norm instead of layer norm",
        "attention on fewer tokens", "attention in bands", "heads left out", "residual branch at half resolution",
        "residual branch left out", "channels left out",
    ),
    "stages": (
        "separable convolution", "resize behind what follows it", "stage to blocks",
        "residual branch at half resolution", "residual branch left out", "channels left out",
    ),
    "deeplab": (
        "head", "sum instead of concatenation", "separable convolution", "added instead of concatenated",
        "convolution without dilation", "residual branch at half resolution", "residual branch left out",
        "channels left out",
    ),
    "pyramid": (
        "sum instead of concatenation", "fewer groups", "linear activation", "hard-swish instead of GELU or swish",
        "full resolution", "resize behind what follows it",
    ),
    "as converted": (
        "idle layers", "activation spelling", "merged linear layers", "sum instead of concatenation", "fewer groups",
        "constants per row", "linear activation", "residual branch left out",
    ),
    "depth to space": ("depth to space last", "constants per row", "linear activation", "full resolution"),
    "few channels": (
        "activation spelling", "merged linear layers", "fewer groups", "bands as channels", "constants per row",
        "linear activation", "full resolution", "residual branch at half resolution", "residual branch left out",
    ),
    "two classes from a transposed convolution": (
        "softmax and argmax", "transposed convolution to depth to space", "transposed convolution to resize",
    ),
    "every transposed convolution": (
        "activation spelling", "transposed convolution to depth to space", "constants per row",
        "channels padded to a multiple of 8", "transposed convolution to resize", "linear activation",
    ),
    "both classes": ("head", "softmax and argmax", *NETWORK),
    "mask, resized": ("head", "softmax and argmax", *NETWORK),
    "mask, resized bilinearly": ("head", *NETWORK),
    "logits": NETWORK,
    "without bias": NETWORK,
    "final resize": ("head", *NETWORK),
    "probabilities": ("head", *NETWORK),
    "mask": ("head", "softmax and argmax", *NETWORK),
    "two classes": ("softmax and argmax", *NETWORK),
    "resize before the classifier": ("head", "softmax and argmax", "full resolution"),
    "odd": (
        "activation spelling", "transposed convolution to depth to space", "constants per row",
        "channels padded to a multiple of 8", "input size", "separable convolution", "linear activation",
        "hard-swish instead of GELU or swish", "channels cut to a multiple of 8", "full resolution", "stage to blocks",
        "channels left out",
        "input size in multiples of 8",
    ),
}  # fmt: skip
PAIRS = [(named(technique), name) for name, techniques in SITES.items() for technique in techniques]
# `head` has sites in more graphs, but there it changes what the network gives.
EXACT_PAIRS = [
    (technique, name)
    for technique, name in PAIRS
    if technique in EXACT and (technique.name != "head" or name == "resize before the classifier")
]
# What changes the whole network leaves nothing behind that could learn.
LEARNING_PAIRS = [
    (technique, name)
    for technique, name in PAIRS
    if technique in APPROXIMATE
    and technique.name != "residual branch left out"
    and name in ("transformer", "deeplab", "pyramid", "odd", "logits")
]


def over(pairs: list[tuple[Technique, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("technique", "name"), pairs, ids=lambda each: getattr(each, "name", each))


def stages() -> Graph:
    """A residual stage that begins with a stride, and a double convolution."""
    residual = (BasicBlock(16, 24, 2), BasicBlock(24, 24), ops.Resize((32, 48)))
    double = (ConvNorm(24, 16, 3), ConvNorm(16, 16, 3))
    return graph(nn.Sequential(ConvNorm(3, 16, 3, 2), nn.MaxPool2d(2), *residual, *double, nn.Conv2d(16, 4, 1)))


@cache
def built_twice(name: str) -> tuple[Graph, Graph]:
    graph = GRAPHS[name]()
    return graph, graph.copy()


def built(name: str) -> Graph:
    """One for all tests: whatever is done to it must leave it as it is."""
    return built_twice(name)[0]


@cache
def found(technique: Technique, name: str) -> Found:
    return technique.find(built(name))


def image(graph: Graph) -> Tensor:
    return torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(4))


def run(graph: Graph) -> Tensor:
    with torch.no_grad():
        return graph(image(graph))


def as_logits(value: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(value, like.shape[2:], mode="bilinear") if value.shape != like.shape else value


def assert_equal(before: Graph, after: Graph) -> None:
    """Equal within float error, after what the host does with a smaller or less processed output."""
    old, new = run(before), run(after)
    if before.description.output_kind == after.description.output_kind:
        # a file has int32 where torch has int64
        torch.testing.assert_close(as_logits(new, old), old, atol=1e-4, rtol=1e-4, check_dtype=False)
    else:
        mask = old if old.ndim == 3 else old.argmax(1)
        assert torch.equal(new if new.ndim == 3 else new.argmax(1), mask)


@pytest.mark.parametrize("technique", DIAGNOSED, ids=lambda each: each.name)
def test_it_says_what_it_is(technique: Technique):
    assert technique.name
    assert technique.paper
    assert technique.needs in NEEDS
    assert named(technique.name) is technique
    assert any(technique.name in techniques for techniques in SITES.values()), "no graph here has a site"


def test_the_folder_lists_the_techniques():
    folder = Path(techniques.__file__).parent
    files = {path.stem for path in folder.glob("*.py")}
    own = {Path(inspect.getfile(type(technique))).stem for technique in DIAGNOSED}
    assert files - own == {"__init__", "technique"}
    for path in (folder / "algebra").glob("*.py"):
        assert "slimseg.techniques." not in path.read_text().replace("slimseg.techniques.algebra.", ""), path


def test_every_pair_with_a_site_is_tested():
    assert SITES.keys() == GRAPHS.keys()
    there = [(technique, name) for name in GRAPHS for technique in DIAGNOSED if found(technique, name).sites]
    assert set(PAIRS) == set(there)
    assert (len(PAIRS), len(EXACT_PAIRS), len(LEARNING_PAIRS)) == (152, 53, 26)
    assert sum(len(found(technique, name).sites) for technique, name in PAIRS) == 430


def reword(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variant of every technique in the same words from now on."""
    for kind in {technique.settings for technique in DIAGNOSED}:
        monkeypatch.setattr(kind, "words", property(lambda _: "reworded"))


@over(PAIRS)
def test_every_site(technique: Technique, name: str, monkeypatch: pytest.MonkeyPatch):
    original, untouched = built_twice(name)
    sites = found(technique, name).sites
    assert sites
    reword(monkeypatch)  # no edit depends on words
    assert {site.variant for site in sites} == {"reworded"}
    for site in sites:
        edited = technique.apply(original, site)
        check_site(original, edited, site, technique)
        assert str(original.module.graph) == str(untouched.module.graph), "the original is left alone"
        assert repr(original.module) == repr(untouched.module)
    assert torch.equal(run(original), run(untouched))


def check_site(original: Graph, edited: Graph, site: Site, technique: Technique) -> None:
    assert invariants.violations(edited.module) == []
    assert site.technique == technique.name
    assert NEEDS.index(site.needs) >= NEEDS.index(technique.needs), "a technique names the least of its variants"
    assert site.reason
    if not site.whole:
        target = edited.node(site.target)
        assert edited.shape(target) == original.shape(original.node(site.target))
        assert edited.input_shape == original.input_shape
        assert edited.shape(edited.output) == original.shape(original.output)
        assert edited.description == original.description
        edit.extract(original, site.source, site.target)
        edit.extract(edited, site.source, site.target)
    if site.needs == "nothing":
        assert_equal(original, edited)
    old = {id(each) for each in original.module.parameters()}
    assert not old & {id(each) for each in edited.module.parameters()}, "training one must not change the other"


@over(LEARNING_PAIRS)
def test_what_approximates_can_be_recovered(technique: Technique, name: str):
    """A planned edit mimics what it replaced: its target is still there, and new weights get gradients."""
    original = built(name)
    old = {node.name for node in original.layers()}
    for site in found(technique, name).sites:
        assert not site.whole
        edited = technique.apply(original, site)
        pair = distil.BlockPair(site.source, whatif.end_of_part(original, site.target, Deployment()))
        value = distil.mimic_loss(original, edited, [pair])(distil.Batch(image(original)))
        assert value.isfinite()
        new = [node for node in edited.layers() if node.name not in old]
        weights = [weight for node in new for weight in edited.module.get_submodule(str(node.target)).parameters()]
        if weights and value.requires_grad:
            assert any(each is not None for each in torch.autograd.grad(value, weights, allow_unused=True))


def test_refusals_have_reasons():
    checked = 0
    for name in GRAPHS:
        names = {node.name for node in built(name).module.graph.nodes}
        for technique in DIAGNOSED:
            for refusal in found(technique, name).refusals:
                assert refusal.technique == technique.name
                assert refusal.layer in names
                assert len(refusal.reason) > 10
                checked += 1
    assert checked == 179


@over(PAIRS)
def test_sites_can_be_applied_one_after_another(technique: Technique, name: str):
    result = original = built(name)
    done: set[str] = set()
    for site in found(technique, name).sites:
        if done.isdisjoint(site.layers):  # variants of one layer exclude each other
            result = technique.apply(result, site)
            done.update(site.layers)
    assert invariants.violations(result.module) == []
    if technique.needs == "nothing":
        assert_equal(original, result)


@pytest.mark.parametrize("name", GRAPHS)
def test_all_techniques_together(name: str):
    result = built(name)
    for technique in DIAGNOSED:
        sites = technique.find(result).sites
        if sites:
            result = technique.apply(result, sites[-1])
    assert invariants.violations(result.module) == []
    assert run(result).isfinite().all()


def first_graph(technique: Technique) -> str:
    """The first graph with a site."""
    return next(name for each, name in PAIRS if each is technique)


def first_site(technique: Technique) -> Site:
    return found(technique, first_graph(technique)).sites[0]


@pytest.mark.parametrize("technique", DIAGNOSED, ids=lambda each: each.name)
def test_a_site_that_is_not_there_is_refused(technique: Technique):
    wrong = graph(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh()))
    site = Site(technique.name, ("layer_1",), "layer_0", "layer_1", technique.needs, "made up")
    with pytest.raises(Unsupported):
        technique.apply(wrong, site)
    if technique.name not in ("input size", "full resolution"):  # these act on this network, too
        with pytest.raises(Unsupported):
            technique.apply(wrong, replace(site, settings=first_site(technique).settings))


@pytest.mark.parametrize("technique", DIAGNOSED, ids=lambda each: each.name)
def test_settings_belong_to_one_technique(technique: Technique):
    class Foreign(Settings):
        pass

    site = first_site(technique)
    assert type(site.settings) is technique.settings
    assert hash(site) == hash(replace(site, reason="other words"))
    assert site == replace(site, reason="other words")
    if technique.settings is not Settings:
        assert site != replace(site, settings=Settings())
        assert site.variant
        with pytest.raises(Unsupported, match="are not settings of"):
            technique.apply(built(first_graph(technique)), replace(site, settings=Foreign()))


@over(PAIRS)
def test_sites_are_the_same_in_other_words(technique: Technique, name: str, monkeypatch: pytest.MonkeyPatch):
    sites = found(technique, name).sites
    reword(monkeypatch)
    assert technique.find(built(name)).sites == sites
    assert len(set(sites)) == len(sites)


@over(PAIRS)
def test_a_journal_keeps_every_site(technique: Technique, name: str, monkeypatch: pytest.MonkeyPatch):
    edits = tuple(PlannedEdit(site, 0.1, 0.0) for site in found(technique, name).sites)
    written = json.dumps(Plan(built(name), (), (), rewrites=edits).as_dict())
    reword(monkeypatch)
    assert Plan.replayed(built(name), json.loads(written)).rewrites == edits


def test_shared_and_grouped_layers_are_refused_by_name():
    refusals = {each.layer: each.reason for each in named("separable convolution").find(graph(Network())).refusals}
    assert "shared with shared_2" in refusals["shared"]
    assert "4 groups" in " ".join(refusals.values())
    (refusal,) = named("transposed convolution to resize").find(graph(Network())).refusals
    assert (refusal.layer, "2 groups" in refusal.reason) == ("grouped", True)


@over(EXACT_PAIRS)
def test_exact_edits_until_none_is_left(technique: Technique, name: str):
    """An edit may bring forth another; there is an end to it, and it is still the same function."""
    result = original = built(name)
    for _ in range(60):
        sites = [site for site in technique.find(result).sites if not changes_the_output(site)]
        if not sites:
            break
        result = technique.apply(result, sites[0])
    else:
        pytest.fail(f"{technique.name} goes on and on")
    assert result is not original
    assert_equal(original, result)


def changes_the_output(site: Site) -> bool:
    return site.whole and site.technique == "head"


def test_a_network_of_300_layers_has_a_site_in_every_block():
    blocks = [
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1), nn.PReLU(8)) for _ in range(100)
    ]
    deep = graph(nn.Sequential(nn.Conv2d(3, 8, 1), *blocks))
    assert sum(len(technique.find(deep).sites) for technique in EXACT) >= 200
