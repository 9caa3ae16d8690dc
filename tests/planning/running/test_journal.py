"""A run that was killed goes on; one that was asked for something else does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import slimseg
from slimseg.errors import OutputError, UserError
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.planning.running import journal
from slimseg.planning.running.journal import FILE, Journal, fingerprint

CONDITIONS: dict[str, Any] = {"network": "abc", "budget": {"max_drop": 1.5}, "sizes": (1, 2)}


def test_entries_are_there_again(tmp_path: Path) -> None:
    first = Journal(tmp_path, CONDITIONS)
    assert not first.resumed
    first["plan 0"] = {"edits": [1, 2.5, None, "×"]}
    first["trained"] = 0.1 + 0.2
    second = Journal(tmp_path, dict(CONDITIONS))
    assert second.resumed
    assert "plan 0" in second
    assert "plan 1" not in second
    assert second["plan 0"] == {"edits": [1, 2.5, None, "×"]}
    assert second["trained"] == 0.1 + 0.2
    second["plan 0"] = "again"
    assert Journal(tmp_path, CONDITIONS).entries == {"plan 0": "again", "trained": 0.1 + 0.2}


def test_nothing_is_written_before_the_first_entry(tmp_path: Path) -> None:
    Journal(tmp_path, CONDITIONS)
    assert not list(tmp_path.iterdir())
    assert not Journal(tmp_path, CONDITIONS).resumed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"network": "abd"}, r"other settings \(network\):"),
        ({"network": "abd", "sizes": [1, 3]}, r"other settings \(network and sizes\):"),
        ({"images": 3}, r"other settings \(images\):"),
        ({"budget": None}, r"other settings \(budget\):"),
    ],
)
def test_what_was_asked_for_must_be_the_same(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    Journal(tmp_path, CONDITIONS)["plan"] = 1
    with pytest.raises(OutputError, match=named):
        Journal(tmp_path, {**CONDITIONS, **change})
    assert Journal(tmp_path, CONDITIONS)["plan"] == 1


def test_a_condition_that_is_gone_is_named_too(tmp_path: Path) -> None:
    Journal(tmp_path, {**CONDITIONS, "teacher": None})["plan"] = 1
    with pytest.raises(OutputError, match=r"other settings \(teacher\):"):
        Journal(tmp_path, CONDITIONS)


def test_a_run_of_another_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(slimseg, "__version__", "0.0.9")
        Journal(tmp_path, {**CONDITIONS, "seed": 3})["plan"] = 1
    told = (
        rf"unfinished run of slimseg 0\.0\.9, and this is {slimseg.__version__}: continue with that version, or give "
    )
    with pytest.raises(OutputError, match=told) as refusal:
        Journal(tmp_path, CONDITIONS)  # whatever else is asked for now
    assert isinstance(refusal.value, UserError)  # exit code 2


def test_entries_of_another_form_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal, "FORM", 1)
        Journal(tmp_path, CONDITIONS)["plan"] = 1
    told = rf"run of slimseg {slimseg.__version__}, .* \(its journal has format 1, here it is {journal.FORM}\)"
    with pytest.raises(OutputError, match=told):
        Journal(tmp_path, CONDITIONS)


def test_a_journal_without_a_version_is_an_earlier_one(tmp_path: Path) -> None:
    entry = {"name": "plan", "value": 1, "files": {}, "seconds": 3.0}
    (tmp_path / FILE).write_text(f"{json.dumps(CONDITIONS)}\n{json.dumps(entry)}\n")
    with pytest.raises(OutputError, match="unfinished run of an earlier slimseg, and this is"):
        Journal(tmp_path, CONDITIONS)


DAMAGED = {
    "empty": lambda lines: [],
    "first line cut short": lambda lines: [lines[0][:9], *lines[1:]],
    "conditions in a row": lambda lines: [b"[1, 2]", *lines[1:]],
    "no text": lambda lines: [b"\xff" + lines[0], *lines[1:]],
    "zeros": lambda lines: [bytes(len(line)) for line in lines],
    "first entry without seconds": lambda lines: [lines[0], lines[1].replace(b"seconds", b"minutes"), lines[2]],
    "first entry is a number": lambda lines: [lines[0], b"3", lines[2]],
    "last line cut short": lambda lines: [*lines[:2], lines[2][:-9]],
    "last line missing": lambda lines: lines[:2],
    "last entry's seconds in words": lambda lines: [*lines[:2], lines[2].replace(b'"seconds": ', b'"seconds": "few"')],
    "last entry nests without end": lambda lines: [*lines[:2], b"[" * 100_000],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_run_goes_on_from_the_last_entry_that_is_whole(tmp_path: Path, damage: str) -> None:
    """The journal used to be refused as a whole. What follows a damaged entry was made with it, so it goes, too."""
    first = Journal(tmp_path, CONDITIONS)
    first["plan"], first["trained"] = 1, 2
    path = tmp_path / FILE
    path.write_bytes(b"\n".join(DAMAGED[damage](path.read_bytes().splitlines())))
    kept = {"plan": 1} if damage.startswith("last") else {}
    again = Journal(tmp_path, CONDITIONS)
    assert again.entries == kept
    assert again.resumed == bool(kept)
    again["more"] = 3
    assert Journal(tmp_path, CONDITIONS).entries == {**kept, "more": 3}


@pytest.mark.parametrize("damage", ["cut short", "gone", "other bytes"])
def test_an_entry_counts_only_with_its_files(tmp_path: Path, damage: str) -> None:
    """Weights that a power cut spoiled are trained anew from the phase before them."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    trained = []

    def phase(name: str, value: float) -> None:
        def train() -> None:
            trained.append(name)
            nn.init.constant_(layer.weight, value)

        journal.trained(name, layer, train)
        assert float(layer.weight.detach().max()) == value

    journal = Journal(tmp_path, CONDITIONS)
    for name, value in (("first", 1.0), ("second", 2.0), ("third", 3.0)):
        phase(name, value)
    weights = tmp_path / "second.safetensors"
    if damage == "gone":
        weights.unlink()
    else:
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-5] if damage == "cut short" else bytes(len(whole)))
    journal, trained = Journal(tmp_path, CONDITIONS), []
    for name, value in (("first", 1.0), ("second", 2.0), ("third", 3.0)):
        phase(name, value)
    assert trained == ["second", "third"]


def test_an_entry_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, CONDITIONS)
    journal["plan"] = 1
    with pytest.raises(TypeError):
        journal["model"] = object()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            journal["plan"] = 2
    assert "model" not in journal
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert Journal(tmp_path, CONDITIONS).entries == journal.entries == {"plan": 1}


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        Journal(tmp_path / "gone", CONDITIONS)["plan"] = 1


def test_time_goes_on_from_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 5000.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: now_s)
    first = Journal(tmp_path, CONDITIONS)
    assert first.seconds == 0
    now_s += 100
    first["plan"] = 1
    now_s += 3600  # while no process works on it
    second = Journal(tmp_path, CONDITIONS)
    assert second.seconds == 100
    now_s += 20
    second["more"] = 1
    assert Journal(tmp_path, CONDITIONS).seconds == 120


def net(**settings: Any) -> Graph:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, **{"padding": 1, **settings}), nn.BatchNorm2d(4), nn.ReLU(), ops.Resize((8, 8))
    return edit.trace(nn.Sequential(*layers).eval(), (1, 3, 8, 8))


def test_the_same_network_has_the_same_fingerprint() -> None:
    assert fingerprint(net()) == fingerprint(net()) == fingerprint(net().copy())
    other = net()
    other.name, other.notes = "another name", ("a note",)
    assert fingerprint(other) == fingerprint(net())
    strided = net()
    strided.module.to(memory_format=torch.channels_last)
    assert fingerprint(strided) == fingerprint(net())


def _weight(graph: Graph) -> None:
    graph.layer(graph.node("layer_0")).weight.data[0, 0, 0, 0] += 1e-6


def _mean(graph: Graph) -> None:
    graph.layer(graph.node("layer_1")).running_mean[2] = 1e-6


def _classes(graph: Graph) -> None:
    graph.description = Description(classes=("sky", "road"))


def _size(graph: Graph) -> None:
    graph.input_shape = (1, 3, 8, 16)


def _resize(graph: Graph) -> None:
    graph.layer(graph.node("layer_3")).mode = "nearest"


def _half(graph: Graph) -> None:
    graph.module.to(torch.bfloat16)


@pytest.mark.parametrize("change", [_weight, _mean, _classes, _size, _resize, _half])
def test_another_network_has_another(change: Callable[[Graph], None]) -> None:
    graph = net()
    change(graph)
    assert fingerprint(graph) != fingerprint(net())


def test_the_same_weights_in_another_layer_are_another_network() -> None:
    assert fingerprint(net(stride=2)) != fingerprint(net())
    assert fingerprint(net(padding=2, dilation=2)) != fingerprint(net())
    assert fingerprint(edit.append(net(), nn.ReLU(), "end")) != fingerprint(net())
