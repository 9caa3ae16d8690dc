"""A stage of a trained network -> blocks (article, section 3.3).

    Given   y = act(f(x)),   f a run of layers with n spatial convolutions, (C, H, W) to (O, H/s, W/s), s = 1 or 2
    Result  y ≈ act(g(x)),   g a row of max(1, ⌊n/2⌋) blocks, the first with stride s

      "residual"            ResNet's bottlenecks on O/4 channels      He et al., 2016
      "shuffle"             ShuffleNetV2's units (d), then (c)        Ma et al., 2018
      "inverted residual"   MobileNetV2's, as wide as a quarter of the stage's MACs allows    Sandler et al., 2018

Only the last layer of g can be computed in closed form: it is fitted to f on noise with the mean and variance that the
weights before the stage imply (algebra/matching.py). The other layers are trained: g learns to reproduce y on images
(Romero et al., "FitNets", 2015, stage by stage).

Stages of depthwise convolutions are not replaced. Measured on camvid_unet after 60 steps of mimicry with half as many
blocks: in its encoder of inverted residuals the error is 0.7 to 1.0 of the features' variance, in its decoder of full
convolutions 0.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from slimseg.blocks.inverted_residual import InvertedResidual
from slimseg.blocks.residual import Bottleneck
from slimseg.blocks.shuffle import ShuffleDownUnit, ShuffleUnit
from slimseg.errors import Unsupported
from slimseg.graph import costs, edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.moments import moments
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.matching import match
from slimseg.techniques.algebra.stage_search import Stage, between, macs, spatial, stages
from slimseg.techniques.technique import Found, Settings, Site, dimensions

MIN_CHANNELS = 8
MIN_SHARE = 0.01  # smallest share of the network's MACs for which a block is worth training, 0-1
MAX_MACS = 0.4  # largest share of the stage's MACs that the blocks may have, 0-1
EXPANSIONS = (6, 4, 3, 2, 1)  # expansion ratios of inverted residuals, in the order in which they are tried
EXPANDED_MACS = 0.25  # share of the stage's MACs that limits the expansion ratio, 0-1


Kind = Literal["residual", "shuffle", "inverted residual"]


@dataclass(frozen=True)
class Blocks(Settings):
    kind: Kind

    @property
    def words(self) -> str:
        return self.kind


class StageBlocks:
    """Replaces whole stages by blocks of another kind."""

    name = "stage to blocks"
    needs: Needs = "images"
    paper = (
        "He et al., Deep Residual Learning, 2016, figure 5; Ma et al., ShuffleNet V2, 2018, figure 3; "
        "Sandler et al., MobileNetV2, 2018, table 1"
    )
    settings = Blocks

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        whole = costs.total(graph).macs
        for stage in stages(graph):
            reason = _refusal(graph, stage, whole)
            if reason:
                refusals.append(Refusal(self.name, stage.layers[0].name, reason))
                continue
            tried = {kind: self._site(graph, stage, Blocks(kind)) for kind in BUILDERS}
            found = [each for each in tried.values() if isinstance(each, Site)]
            if not found:
                reason = "; ".join(f"{kind}: {why}" for kind, why in tried.items())
                refusals.append(Refusal(self.name, stage.layers[0].name, reason))
            sites += found
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, stage: Stage, blocks: Blocks) -> Site | str:
        """The site, or the reason why there is none."""
        before = macs(graph, stage)
        try:
            with torch.device("meta"):
                after = _macs(graph, stage, BUILDERS[blocks.kind](graph, stage))
        except ValueError as error:
            return str(error)
        if after > MAX_MACS * before:
            return f"the blocks would have {after / before:.0%} of the stage's MACs"
        several = f"{_count(stage)} {blocks.words} block{'s' if _count(stage) > 1 else ''}"
        reason = (
            f"stage of {stage.convolutions} spatial convolutions, {dimensions(graph, stage.source)} to "
            f"{dimensions(graph, stage.target)}: {before / after:.1f}x fewer MACs as {several}"
        )
        names = tuple(node.name for node in stage.layers)
        return Site(self.name, names, stage.source.name, stage.target.name, self.needs, reason, blocks)

    def apply(self, graph: Graph, site: Site) -> Graph:
        stage = between(graph, site.source, site.target)
        blocks = site.settings_as(Blocks)
        if stage is None or {node.name for node in stage.layers} != set(site.layers):
            raise Unsupported(f"{site.source} to {site.target} is not a stage that {self.name} can replace")
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # every call gives the same edit: when it is priced, judged and applied
            try:
                block = BUILDERS[blocks.kind](graph, stage)
            except ValueError as error:
                raise Unsupported(f"{site.target} cannot end in a {blocks.words} block: {error}") from error
        ending = stage.target if _activation(graph, stage) is None else producer(stage.target)
        old = edit.extract(graph, site.source, ending.name)
        match(block, old, moments(graph, stage.source))
        return edit.replace(graph, [site.source], site.target, block)


def _residual(graph: Graph, stage: Stage) -> nn.Module:
    inputs, outputs, stride = _ends(graph, stage)
    last = _last_activation(graph, stage)
    if _count(stage) == 1:
        return Bottleneck(inputs, outputs, stride, activation=last)
    inner = (Bottleneck(outputs, outputs) for _ in range(_count(stage) - 2))
    return nn.Sequential(
        Bottleneck(inputs, outputs, stride), *inner, Bottleneck(outputs, outputs, activation=last)
    )  # fmt: skip


def _shuffle(graph: Graph, stage: Stage) -> nn.Module:
    inputs, outputs, stride = _ends(graph, stage)
    activation = _activation(graph, stage)
    if not isinstance(activation, ops.PLAIN_ACTIVATIONS):
        raise ValueError("its units end with an activation, and the stage does not")
    units = [ShuffleUnit(outputs, lambda: copy.deepcopy(activation)) for _ in range(_count(stage) - 1)]
    return nn.Sequential(ShuffleDownUnit(inputs, outputs, stride, lambda: copy.deepcopy(activation)), *units)


def _inverted(graph: Graph, stage: Stage) -> nn.Module:
    """Inverted residuals with the largest of EXPANSIONS that keeps within EXPANDED_MACS, else with the smallest."""
    allowed = EXPANDED_MACS * macs(graph, stage)
    with torch.device("meta"):
        fitting = (each for each in EXPANSIONS if _macs(graph, stage, _inverted_of(graph, stage, each)) <= allowed)
        expansion = next(fitting, EXPANSIONS[-1])
    return _inverted_of(graph, stage, expansion)


def _inverted_of(graph: Graph, stage: Stage, expansion: int) -> nn.Module:
    inputs, outputs, stride = _ends(graph, stage)
    blocks = [InvertedResidual(inputs, outputs, stride, expansion)]
    blocks += [InvertedResidual(outputs, outputs, 1, expansion) for _ in range(_count(stage) - 1)]
    activation = _last_activation(graph, stage)
    return nn.Sequential(*blocks) if activation is None else nn.Sequential(*blocks, activation())


BUILDERS: dict[Kind, Callable[[Graph, Stage], nn.Module]] = {
    "residual": _residual,
    "shuffle": _shuffle,
    "inverted residual": _inverted,
}


def _refusal(graph: Graph, stage: Stage, whole_macs: int) -> str | None:
    inputs, outputs, stride = _ends(graph, stage)
    shared = next((other for node in stage.layers if (other := edit.shared_with(graph, node))), None)
    if shared:
        return f"its weights are shared with {shared}"
    if min(inputs, outputs) < MIN_CHANNELS:
        return f"{inputs} to {outputs} channels are too few for a block to be faster"
    if not stride:
        before, after = (dimensions(graph, node) for node in (stage.source, stage.target))
        return f"it converts {before} to {after}, which no block of stride 1 or 2 does"
    if any((layer := spatial(graph, node)) is not None and max(layer.dilation) > 1 for node in stage.layers):
        return "its dilated convolutions have a larger receptive field than a block"
    convolutions = [layer for node in stage.layers if (layer := spatial(graph, node)) is not None]
    if 2 * sum(map(ops.is_depthwise, convolutions)) > len(convolutions):
        return "its spatial convolutions are already depthwise: fewer blocks would learn it badly"
    share = macs(graph, stage) / whole_macs
    if share < MIN_SHARE:
        return f"it has {share:.1%} of the network's MACs, too few to be worth training a block"
    return None


def _ends(graph: Graph, stage: Stage) -> tuple[int, int, int]:
    """(input channels, output channels, stride); the stride is 0 if it is not 1 or 2."""
    _, inputs, *before = graph.shape(stage.source)
    _, outputs, *after = graph.shape(stage.target)
    stride = next((each for each in (1, 2) if [-(-length // each) for length in before] == after), 0)
    return inputs, outputs, stride


def _count(stage: Stage) -> int:
    return max(1, stage.convolutions // 2)


def _activation(graph: Graph, stage: Stage) -> nn.Module | None:
    """The activation that the stage ends with; None if it ends with another layer."""
    return graph.layer_as(stage.target, ops.ACTIVATIONS)


def _last_activation(graph: Graph, stage: Stage) -> Callable[[], nn.Module] | None:
    activation = _activation(graph, stage)
    return None if activation is None else lambda: copy.deepcopy(activation)


def _macs(graph: Graph, stage: Stage, block: nn.Module) -> int:
    return costs.total(edit.trace(block, graph.shape(stage.source))).macs
