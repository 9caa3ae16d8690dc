"""A plan that was written down is the same plan when it is made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from slimseg.errors import GraphError, Unsupported
from slimseg.graph.channel_groups import channel_groups
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.exact import PlannedEdit
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running.journal import FORM
from slimseg.results import InputSizeTrial, Refusal
from slimseg.techniques import DIAGNOSED, Site, named
from slimseg.techniques.channels import Channels, site_of


@pytest.fixture(scope="module")
def original(shapes_graph: Graph) -> Graph:
    return shapes_graph


@pytest.fixture(scope="module")
def made(original: Graph) -> Plan:
    """A transposed convolution replaced, then channels left out by an importance that no weight tells."""
    torch.manual_seed(1)
    graph = original.copy()
    upsampling = named("transposed convolution to resize")
    sites = [upsampling.find(graph).sites[0]]
    graph = upsampling.apply(graph, sites[0])
    importance = {}
    for node in original.layers():
        if isinstance(original.layer(node), nn.Conv2d | nn.ConvTranspose2d):
            importance[node.name] = torch.rand(original.shape(node)[1]) * 1e-7 / 3
    graph.importance = importance
    for root in [group.root for group in channel_groups(graph) if group.channels >= 16]:
        group = next(each for each in channel_groups(graph) if each.root == root)
        sites.append(site_of(graph, group, group.channels // 2))
        graph = named(Channels.name).apply(graph, sites[-1])
    edits = tuple(PlannedEdit(site, 0.1 * number + 0.2, 1 / 3, None) for number, site in enumerate(sites))
    refusals = (Refusal("channels left out", "a", "its channels × 3"),)
    return Plan(graph, edits, refusals, edits[:1], importance, start_ms=3.2)


def written(plan: Plan) -> dict[str, object]:
    values: dict[str, object] = json.loads(json.dumps(plan.as_dict()))
    return values


def test_all_is_there_again(original: Graph, made: Plan) -> None:
    again = Plan.replayed(original, written(made))
    assert len(made.edits) > 3
    assert again.edits == made.edits
    assert again.rewrites == made.rewrites
    assert again.refusals == made.refusals
    assert again.start_ms == made.start_ms
    assert again.importance.keys() == made.importance.keys()
    for name, values in again.importance.items():
        torch.testing.assert_close(values, made.importance[name], atol=0, rtol=0)
    assert written(again) == written(made)


def test_the_graph_is_the_same_to_the_last_weight(original: Graph, made: Plan) -> None:
    again = Plan.replayed(original, written(made)).graph
    assert str(again.module.graph) == str(made.graph.module.graph)
    expected = made.graph.module.state_dict()
    for name, values in again.module.state_dict().items():
        torch.testing.assert_close(values, expected[name], atol=1e-6, rtol=1e-6)
    for name, values in again.importance.items():
        torch.testing.assert_close(values, made.graph.importance[name])
    x = torch.randn(original.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(again(x), made.graph(x), atol=1e-4, rtol=1e-4)


def test_the_original_is_left_alone(original: Graph, made: Plan) -> None:
    before = {name: value.clone() for name, value in original.module.state_dict().items()}
    Plan.replayed(original, written(made))
    assert original.importance == {}
    for name, values in original.module.state_dict().items():
        torch.testing.assert_close(values, before[name], atol=0, rtol=0)


def test_a_plan_is_the_same_in_other_words(original: Graph, made: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run used to make another edit, or none, where a sentence had been reworded since it began."""
    values = written(made)
    for kind in {type(each.site.settings) for each in made.edits}:
        monkeypatch.setattr(kind, "words", property(lambda _: "reworded"))
    again = Plan.replayed(original, values)
    assert again.edits == made.edits
    assert str(again.graph.module.graph) == str(made.graph.module.graph)
    fewer = replace(again, rewrites=()).without(original, [replace(made.edits[-1].site, reason="reworded")])
    assert fewer.edits == made.edits[:-1]


def test_another_form_of_what_is_written_has_another_number() -> None:
    """A run that was begun before would otherwise end in a traceback: count `journal.FORM` up, then pin both anew."""
    settings = sorted({technique.settings for technique in DIAGNOSED}, key=repr)
    names = [
        (kind.__qualname__, [(each.name, str(each.type)) for each in fields(kind)])
        for kind in (PlannedEdit, Site, Refusal, InputSizeTrial, *settings)
    ]
    written_in = (FORM, hashlib.sha256(repr(names).encode()).hexdigest()[:12])
    assert written_in == (4, "eeace288818f")


def test_a_plan_of_nothing(original: Graph) -> None:
    again = Plan.replayed(original, written(Plan(original, (), ())))
    assert (again.edits, again.refusals, again.rewrites, again.importance) == ((), (), (), {})


def test_the_plan_of_another_network_is_refused(made: Plan) -> None:
    with pytest.raises((Unsupported, GraphError)):
        Plan.replayed(made.graph, written(made))


def test_predictions_go_with_the_machine(made: Plan) -> None:
    edit = replace(made.edits[0], predicted_saving_ms=2.0, alone_saving_ms=3.0)
    slower = edit.at_pace(1.5)
    assert (slower.predicted_saving_ms, slower.alone_saving_ms) == (3.0, 4.5)
    assert replace(edit, alone_saving_ms=None).at_pace(2).alone_saving_ms is None
