"""The training loop, on lightning-fabric: CPU, one or several GPUs, `torchrun`.

The learning rate follows a cosine over the steps or the time limit, whichever ends first, so that a run that ends early
has still converged.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import logging
import math
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimseg.disk import atomic
from slimseg.errors import ModelError
from slimseg.progress import Bar, Progress, Silent
from slimseg.training import memory

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Batch = Any
Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    time_limit_s: float = math.inf
    gradient_norm: float = 5.0
    average_decay: float = 0.99  # decay of the moving average of weights that training returns; 0: the last weights
    precision: str = "32-true"  # lightning-fabric's name, such as "bf16-mixed"; precision.py finds the fastest
    checkpoint_every: int = 200


@dataclass(frozen=True)
class TrainingLog:
    steps: int
    seconds: float
    first_loss: float
    last_loss: float  # mean over the last tenth of the steps
    skipped: int = 0  # number of steps left out because a gradient was not finite


def train(
    module: nn.Module,
    loss: Loss,
    batches: Iterator[Batch],
    schedule: Schedule,
    progress: Progress,
    what: str,
    checkpoint: Path | None = None,
    seed: int = 0,
) -> TrainingLog:
    """Train the parameters of `module` that require gradients, on the device and processes that fabric finds.

    Batch norms keep their statistics: they describe the data, not the edit, and batches here are small.

    Args:
        module: trained in place; left in eval mode with its averaged weights.
        loss: takes a batch (already on the module's device), runs `module` and returns a scalar.
        batches: without end; under `torchrun` each process has its own.
        checkpoint: the file that stores the state; if it exists, training continues from it.
        seed: seed of all random numbers in the steps; process k of `torchrun` gets seed + k.

    Raises:
        ModelError: the checkpoint is damaged or belongs to another network.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters or schedule.steps < 1 or schedule.time_limit_s <= 0:
        return TrainingLog(0, 0.0, 0.0, 0.0)
    memory.keep_freed()
    home = parameters[0].device
    trainer = _Trainer(module, loss, schedule, seed)
    first = _resume(checkpoint, module, trainer.optimiser, trainer.average)
    module.eval()
    bar = (progress if trainer.fabric.is_global_zero else Silent()).bar(what, schedule.steps)
    try:
        log = _steps(trainer, batches, schedule, first, bar, checkpoint)
    finally:
        bar.close()
    if log.skipped:
        progress.say(f"{what}: {log.skipped} steps skipped, because their gradients were not finite")
    trainer.average.copy_to(module)
    module.to(home)
    return log


def _steps(
    trainer: _Trainer, batches: Iterator[Batch], schedule: Schedule, first: int, bar: Bar, checkpoint: Path | None
) -> TrainingLog:
    started, losses, skipped = time.monotonic(), [], 0
    for step in range(first, schedule.steps):
        elapsed = _elapsed(trainer.fabric, started, schedule)
        if elapsed >= 1:
            break
        loss = trainer.step(next(batches), _rate(schedule, step, max(step / schedule.steps, elapsed)))
        if loss is None:
            skipped += 1
            continue
        losses.append(loss)
        # if the time limit ends the run first, the bar shows the share of time
        bar.update(max(step + 1, elapsed * schedule.steps), f"loss {sum(losses[-20:]) / len(losses[-20:]):.4f}")
        if checkpoint and trainer.fabric.is_global_zero and (step + 1) % schedule.checkpoint_every == 0:
            _save(checkpoint, step + 1, trainer.module, trainer.optimiser, trainer.average)
    tail = losses[-max(1, len(losses) // 10) :] or [0.0]
    return TrainingLog(len(losses), time.monotonic() - started, (losses or [0.0])[0], sum(tail) / len(tail), skipped)


class _Trainer:
    """A network with its optimiser and the average of its weights, on the devices and processes that fabric finds."""

    def __init__(self, module: nn.Module, loss: Loss, schedule: Schedule, seed: int) -> None:
        self.module = module
        self.gradient_norm = schedule.gradient_norm
        self.fabric = _fabric(schedule)
        self.fabric.seed_everything(seed + self.fabric.global_rank, verbose=False)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(parameters, schedule.learning_rate, weight_decay=schedule.weight_decay)
        self.step_module, self.optimiser = self.fabric.setup(_Step(module, loss), optimiser)
        self.average = _Average(module, schedule.average_decay)

    def step(self, batch: Batch, rate: float) -> float | None:
        """One step of the optimiser: its loss, or None if a gradient was not finite and the step was left out."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        value = self.step_module(self.fabric.to_device(batch))
        self.optimiser.zero_grad()
        self.fabric.backward(value)
        norm = self.fabric.clip_gradients(
            self.step_module, self.optimiser, max_norm=self.gradient_norm, error_if_nonfinite=False
        )
        # Gradients are averaged over all processes, so either all of them leave the step out or none does.
        if norm is not None and not torch.isfinite(norm):
            return None
        self.optimiser.step()
        self.average.update(self.module)
        return float(value.detach())


class _Step(nn.Module):
    """The loss as a module: gradients of processes are only averaged if the module that fabric wraps is called."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(batch)


def _elapsed(fabric: Fabric, started: float, schedule: Schedule) -> float:
    """Share of the time limit that has passed, by the first process's clock, so that all stop at the same step."""
    if math.isinf(schedule.time_limit_s):
        return 0.0
    share = (time.monotonic() - started) / schedule.time_limit_s
    return float(fabric.broadcast(share)) if fabric.world_size > 1 else share


def _fabric(schedule: Schedule) -> Fabric:
    """The devices of all processes under `torchrun`, which sets the world size; otherwise the best single device.

    Fabric is imported only here: it imports torch's compiler, which takes seconds.
    """
    with _unseen("torchmetrics"):  # Fabric imports it, with transformers and scipy, only to look at its version
        from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs the precision at every start
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning_fabric")  # advice on settings that are chosen on purpose
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        nodes = int(os.environ.get("WORLD_SIZE", "1")) // devices
        fabric = Fabric(accelerator="auto", devices=devices, num_nodes=nodes, precision=schedule.precision)  # type: ignore[arg-type]
        fabric.launch()
    if torch.distributed.is_initialized():
        _part_at_exit()
    return fabric


@contextlib.contextmanager
def _unseen(name: str) -> Iterator[None]:
    """A module that has not been imported yet counts as not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]


@functools.cache
def _part_at_exit() -> None:
    """Destroy the process group before the interpreter exits.

    Fabric does so for NCCL only; gloo's threads, if still running while the process exits, can abort it.
    """
    atexit.register(_part)


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _rate(schedule: Schedule, step: int, done: float) -> float:
    """The learning rate of a step; `done` is the share of the run that has passed, 0-1."""
    warm = min(1.0, (step + 1) / max(1, schedule.warmup_steps))
    return schedule.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Average:
    """Moving average of the trained weights (Polyak averaging), which reduces the noise of small batches."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: copy.deepcopy(p.detach()) for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for name, parameter in module.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        if not self.decay or not self.steps:
            return
        for name, parameter in module.named_parameters():
            if name in self.values:
                parameter.copy_(self.values[name])


def _save(path: Path, step: int, module: nn.Module, optimiser: Any, average: _Average) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average.values,
        "average_steps": average.steps,
    }
    with atomic.replacing(path) as stream:
        torch.save(state, stream)


def _resume(path: Path | None, module: nn.Module, optimiser: Any, average: _Average) -> int:
    if path is None or not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        for name, value in average.values.items():
            value.copy_(state["average"][name])
        average.steps = int(state["average_steps"])
        return int(state["step"])
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ModelError(
            f"{path} is damaged or belongs to another network: remove it to train from the start"
        ) from error
