"""Edits that move a layer off a named processor are refused, whatever they save."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from slimseg.errors import UserError
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.pricing import placing, whatif
from slimseg.progress import Silent
from slimseg.runtimes import registry
from slimseg.techniques import named
from slimseg.techniques.transposed import Transposed

NAME = Transposed.name


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 4, 2, 1))
    return edit.trace(layers.eval(), (1, 3, 32, 32))


def test_a_processor_without_the_new_operator_refuses(graph: Graph) -> None:
    site = next(each for each in Transposed().find(graph).sites if "one convolution" in each.variant)
    after = named(NAME).apply(graph, site)
    objection = placing.Guard(registry.deployment(processor="cpu,npu:mediatek")).objection_to(graph, after)
    assert objection is not None
    assert "npu:mediatek would leave DEPTH_TO_SPACE" in objection
    for others in ("cpu", "npu:tensor"):  # Google's plugin refuses few operators
        assert placing.Guard(registry.deployment(processor=others)).objection_to(graph, after) is None
    # The way back is no loss.
    assert placing.Guard(registry.deployment(processor="npu:mediatek")).objection_to(after, graph) is None


@pytest.mark.usefixtures("quick_timing")
def test_such_an_edit_gets_no_price(graph: Graph) -> None:
    sites = [each for each in Transposed().find(graph).sites if "one convolution" in each.variant]
    deployment = registry.deployment()
    assert set(whatif.price(graph, sites, deployment, Silent()).prices) == set(sites)
    guarded = whatif.price(graph, sites, replace(deployment, others=("npu:mediatek",)), Silent())
    assert not guarded.prices
    assert {refusal.technique for refusal in guarded.refusals} == {NAME}
    assert all("DEPTH_TO_SPACE" in refusal.reason for refusal in guarded.refusals)


@pytest.mark.parametrize(
    ("runtime", "processor"), [("litert", "cpu,tpu"), ("litert", "gpu,gpu"), ("ncnn", "gpu"), ("litert", "npu:none")]
)
def test_a_budget_names_processors_that_the_runtime_has(runtime: str, processor: str) -> None:
    with pytest.raises(UserError, match="processor"):
        Budget(runtime=runtime, processor=processor)
