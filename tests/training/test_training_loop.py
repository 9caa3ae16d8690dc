"""The one loop: it learns, leaves alone what is frozen, stops in time, resumes, works under torchrun."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimseg.errors import UserError
from slimseg.progress import Silent
from slimseg.training import loop
from slimseg.training.loop import Schedule, train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()


def batches(seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(4, 3, 8, 8, generator=generator)


def loss_of(module: nn.Module):  # type: ignore[no-untyped-def]
    def loss(images: Tensor) -> Tensor:
        labels = (images[:, 0] > images[:, 1]).long()
        return nn.functional.cross_entropy(module(images), labels)

    return loss


def fit(module: nn.Module, schedule: Schedule, **options):  # type: ignore[no-untyped-def]
    return train(module, loss_of(module), batches(), schedule, Silent(), "training", **options)


def test_it_learns() -> None:
    module = network()
    log = fit(module, Schedule(150, learning_rate=2e-2))
    assert log.steps == 150
    assert log.last_loss < 0.4 * log.first_loss
    # what is kept is the average of the weights, and it is as good
    with torch.no_grad():
        assert float(loss_of(module)(next(batches(seed=9)))) < 0.5 * log.first_loss
    assert not module.training


def test_frozen_parameters_and_batch_norm_statistics_stay() -> None:
    module = network()
    module[0].requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    fit(module, Schedule(5, learning_rate=0.1))
    after = module.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"0.weight", "0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= same
    assert not {"1.weight", "3.weight"} & same


def test_nothing_to_train_is_no_step() -> None:
    module = network().requires_grad_(False)
    assert fit(module, Schedule(5)).steps == 0
    assert fit(network(), Schedule(0)).steps == 0


def test_a_seed_repeats_it() -> None:
    first, second = network(), network()
    for module in (first, second):
        fit(module, Schedule(5), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_time_limit_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.01 * next(asked))  # every look at the clock takes 10 ms
    log = fit(network(), Schedule(1_000_000, time_limit_s=0.5))
    assert 5 < log.steps <= 50


def test_no_time_at_all_changes_nothing() -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    assert fit(module, Schedule(10, time_limit_s=0.0)).steps == 0
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_loss_that_is_not_finite_does_not_reach_the_weights() -> None:
    module = network()
    numbers = itertools.count()

    def loss(images: Tensor) -> Tensor:
        return loss_of(module)(images) * (math.nan if next(numbers) == 3 else 1.0)

    log = train(module, loss, batches(), Schedule(8), Silent(), "training")
    assert (log.steps, log.skipped) == (7, 1)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_the_precision_reaches_the_layers() -> None:
    module, seen = network(), set()
    module[0].register_forward_hook(lambda layer, given, output: seen.add(output.dtype))
    fit(module, Schedule(2, precision="bf16-mixed"))
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.ckpt"
    module = network()
    fit(module, Schedule(6, checkpoint_every=6), checkpoint=path)
    assert path.is_file()
    again = network()
    log = fit(again, Schedule(10, checkpoint_every=100), checkpoint=path)
    assert log.steps == 4
    assert [each.name for each in tmp_path.iterdir()] == ["state.ckpt"]


def test_a_damaged_checkpoint_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "state.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"state\.ckpt"):
        fit(network(), Schedule(2), checkpoint=path)


def test_a_checkpoint_of_another_network_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "state.ckpt"
    fit(network(), Schedule(2, checkpoint_every=2), checkpoint=path)
    other = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    with pytest.raises(UserError, match=r"state\.ckpt"):
        fit(other, Schedule(4), checkpoint=path)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    path, witness = tmp_path / "state.ckpt", tmp_path / "witness"

    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (witness,))

    torch.save({"step": Trap()}, path)
    with pytest.raises(UserError):
        fit(network(), Schedule(2), checkpoint=path)
    assert not witness.exists()


WORKER = """
import atexit, json, os, sys, torch
from torch import nn
from slimseg.progress import Silent
from slimseg.training import loop
from slimseg.training.loop import Schedule, train
atexit.register(lambda: torch.distributed.is_initialized() and os._exit(3))  # the last to be called: registered first
torch.set_num_threads(1)
torch.manual_seed(0)
module = nn.Conv2d(3, 2, 1)
rank = int(os.environ["RANK"])
generator = torch.Generator().manual_seed(rank)  # each process has other images
def batches():
    while True:
        yield torch.rand(4, 3, 8, 8, generator=generator)
def loss(images):
    return nn.functional.cross_entropy(module(images), (images[:, 0] > images[:, 1]).long())
train(module, loss, batches(), Schedule(5, learning_rate=0.05), Silent(), "training")
assert "torchmetrics" not in sys.modules  # which Fabric would import, with all that it imports
with open(os.path.join(sys.argv[1], f"{rank}.json"), "w") as file:
    json.dump(module.weight.flatten().tolist(), file)
"""


def test_processes_of_torchrun_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=1200, env=environment)
    assert done.returncode == 0, done.stderr  # whole: what made a process abort stands at its beginning
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == pytest.approx(second, abs=1e-6)
