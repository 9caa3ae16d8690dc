"""Damage of an edit, against running the whole edited network."""

from __future__ import annotations

import torch
from torch import Tensor

from slimseg.graph.graph import Graph
from slimseg.planning.choosing import sensitivity
from slimseg.progress import Silent
from slimseg.techniques import TECHNIQUES, Site, named


def images() -> Tensor:
    return torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(1))


def sites(graph: Graph) -> list[Site]:
    return [site for technique in TECHNIQUES for site in technique.find(graph).sites if not site.whole]


def test_equals_the_comparison_of_whole_networks(shapes_graph: Graph) -> None:
    found = sites(shapes_graph)
    damage = sensitivity.damage(shapes_graph, found, images(), Silent())
    assert list(damage) == found
    with torch.inference_mode():
        before = shapes_graph(images()).argmax(1)
        for site in found:
            after = named(site.technique).apply(shapes_graph, site)(images()).argmax(1)
            whole = 100 * float((before != after).float().mean())
            assert abs(damage[site] - whole) < 0.02, site  # a pixel or two on the fence
    assert max(damage.values()) > 0.1


def test_an_exact_edit_does_none(shapes_graph: Graph) -> None:
    upsampling = next(site for site in sites(shapes_graph) if "up2" in site.layers and site.needs == "images")
    edited = named(upsampling.technique).apply(shapes_graph, upsampling)
    exact = [site for site in named("head").find(edited).sites if not site.whole]
    assert exact
    damage = sensitivity.damage(edited, exact, images(), Silent())
    assert max(damage.values()) < 0.02


def test_more_rank_does_less(shapes_graph: Graph) -> None:
    ranks = [site for site in sites(shapes_graph) if site.layers == ("join_0",) and "rank" in site.variant]
    assert [site.variant for site in ranks] == ["rank 1", "rank 2"]
    damage = sensitivity.damage(shapes_graph, ranks, images(), Silent())
    assert damage[ranks[1]] < damage[ranks[0]]


def test_classes_of_every_kind_of_output(shapes_graph: Graph) -> None:
    logits = torch.tensor([[[[-1.0, 2.0]], [[0.5, 0.6]]]])
    assert sensitivity.classes(shapes_graph, logits).tolist() == [[[1, 0]]]
    assert sensitivity.classes(shapes_graph, logits[:, :1]).tolist() == [[[0, 1]]]
    assert sensitivity.classes(shapes_graph, torch.tensor([[[2, 0]]])).tolist() == [[[2, 0]]]


def test_masks_at_a_size(shapes_graph: Graph) -> None:
    assert sensitivity.masks(shapes_graph, images()).shape == (2, 128, 160)
    assert sensitivity.masks(shapes_graph, images(), (64, 80)).shape == (2, 64, 80)
