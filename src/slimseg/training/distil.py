"""Recover accuracy by distillation: the original network is the teacher, the edited network the student.

    mimic    each new block alone: it reads the teacher's features and learns to reproduce the teacher's features
             (Romero et al., "FitNets", 2015, eq. 3, block by block)
    distil   the whole student: it learns the teacher's outputs and features, and labels, or the classes of which the
             teacher is sure (Hinton et al., 2015)

In both, layers that are equal in student and teacher are computed only once, by the teacher: a frozen encoder, say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from slimseg.graph.features import Features
from slimseg.graph.graph import Graph, needed
from slimseg.training import losses


class Batch(NamedTuple):
    """The images and masks of one training step."""

    images: Tensor  # preprocessed, (N, 3, H, W) at the student's size
    masks: Tensor | None = None  # (N, h, w)
    large: Tensor | None = None  # the same images at the teacher's input size, if that differs


@dataclass(frozen=True)
class BlockPair:
    """A new block of the student and the teacher's part that it replaces: both lead from `source` to `target`."""

    source: str
    target: str


@dataclass(frozen=True)
class Weights:
    """The weight of each term of the distillation loss."""

    teacher: float = 1.0
    features: float = 0.1
    labels: float = 0.3
    lovasz: float = 0.2


def freeze_except(student: Graph, trainable: Callable[[str], bool]) -> None:
    """Freeze all parameters but those of the layers whose names `trainable` accepts."""
    for name, parameter in student.module.named_parameters():
        parameter.requires_grad_(trainable(name.partition(".")[0]))


def shared_values(teacher: Graph, student: Graph) -> set[str]:
    """Names of nodes with equal values in both networks: same layer, settings and inputs, and frozen in the student."""
    counterparts = {node.name: node for node in teacher.layers()}
    shared = {student.input.name}
    for node in student.layers():
        other = counterparts.get(node.name)
        if other is None or str(other.target) != str(node.target) or not _same_inputs(node, other, shared):
            continue
        layer, original = student.layer(node), teacher.layer(other)
        if layer is not None and original is not None and _same_layer(layer, original):
            shared.add(node.name)
    return shared - {student.input.name}


def _same_inputs(node: fx.Node, other: fx.Node, shared: set[str]) -> bool:
    mine, theirs = ([source.name for source in each.all_input_nodes] for each in (node, other))
    return mine == theirs and all(name in shared for name in mine)


def _same_layer(layer: nn.Module, original: nn.Module) -> bool:
    # repr shows the settings (stride, slope, size), which have to be equal as well as the weights
    if type(layer) is not type(original) or repr(layer) != repr(original):
        return False
    if any(parameter.requires_grad for parameter in layer.parameters()):
        return False
    mine, theirs = layer.state_dict(), original.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key].cpu(), theirs[key].cpu()) for key in mine)


def follow(teacher: Graph, images: Tensor) -> None:
    """Move the teacher to the device of `images`, which the training loop chooses."""
    first = next(teacher.module.parameters(), None)
    if first is not None and first.device != images.device:
        teacher.module.to(images.device)


def mimic_loss(teacher: Graph, student: Graph, pairs: Sequence[BlockPair]) -> Callable[[Batch], Tensor]:
    """The sum of the losses of all new blocks, each of which reads the teacher's features: they train in parallel."""
    names = {name for pair in pairs for name in (pair.source, pair.target)}
    watch = Features(teacher.module, names)
    blocks = [(pair, _Part(student, pair)) for pair in pairs]

    def loss(batch: Batch) -> Tensor:
        images = batch.images
        follow(teacher, images)
        with torch.no_grad():
            _, known = watch(images)
            known[teacher.input.name] = images
        terms = [losses.mimicry(part(known[pair.source]).float(), known[pair.target].float()) for pair, part in blocks]
        return torch.stack(terms).sum()

    return loss


class _Part:
    """The student's part from the value of `source` to that of `target`, with the student's own parameters."""

    def __init__(self, student: Graph, pair: BlockPair) -> None:
        graph = fx.Graph()
        source, target = student.node(pair.source), student.node(pair.target)
        values = {source: graph.placeholder("x")}
        for node in needed(target, {source}):
            values[node] = graph.node_copy(node, lambda old: values[old])
        graph.output(values[target])
        self.run = Features(fx.GraphModule(student.module, graph), ())

    def __call__(self, value: Tensor) -> Tensor:
        return self.run(value)[0]


def class_loss(logits: Tensor, expected: Tensor, batch: Batch, weights: Weights) -> Tensor:
    """The loss without features: the student's `logits` against the teacher's, `expected`, and against labels.

    If the batch has no labels, the classes of which the teacher is sure replace them (Lee, "Pseudo-Label", 2013). Rare
    classes, which change a mean over pixels little, then count as much as with labels.
    """
    logits, expected = logits.float(), expected.float()  # layers may compute in bfloat16; losses are in float32
    masks = batch.masks
    if masks is None:
        masks = losses.sure_classes(losses.at_size(expected, batch.images.shape[2:]))
    both = losses.two_classes(logits)
    return (
        weights.teacher * losses.distillation(logits, expected)
        + weights.labels * losses.cross_entropy(both, masks)
        + weights.lovasz * losses.lovasz_softmax(both, masks)
    )


def distil_loss(
    teacher: Graph, student: Graph, features: Sequence[str], weights: Weights, large: Graph | None = None
) -> Callable[[Batch], Tensor]:
    """The loss of the whole student: against the teacher's features at the named nodes, its classes, and labels.

    Args:
        teacher: the teacher at the student's input size; gives the features, and the classes unless `large` is given.
        features: names of nodes that student and teacher have.
        weights: weights of the loss's terms.
        large: the teacher at a larger input size, for the classes, so that the student can recover what it loses by
            its smaller input.
    """
    shared = shared_values(teacher, student)
    boundary = {name for name in shared if any(user.name not in shared for user in student.node(name).users)}
    watch_teacher = Features(teacher.module, {*features, *boundary})
    watch_student = Features(student.module, features)
    inner = shared - boundary

    def loss(batch: Batch) -> Tensor:
        images = batch.images
        follow(teacher, images)
        with torch.no_grad():
            expected, known = watch_teacher(images)
            if large is not None and batch.large is not None:
                follow(large, images)
                expected = large(batch.large)
        given = {name: known[name] for name in boundary} | dict.fromkeys(inner, images)  # inner ones are never read
        logits, own = watch_student(images, given)
        total = class_loss(logits, expected, batch, weights)
        if features:
            terms = [losses.mimicry(own[name].float(), known[name].float()) for name in features]
            total = total + weights.features * torch.stack(terms).mean()
        return total

    return loss
