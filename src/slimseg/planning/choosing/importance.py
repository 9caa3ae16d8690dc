"""Measures how important each channel is for the result, on the user's images.

A channel's importance is the squared first-order change of the loss if the channel is removed. Summed over the weights
w of the filters that compute it, s_c = Σ_batches (Σ w·∂L/∂w)² (Molchanov et al., "Importance Estimation for Neural
Network Pruning", 2019, eq. 8). The loss takes the network's own mask as the target, so no labels are needed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.graph.channel_groups import filters
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw
from slimseg.planning.choosing.scores import logits_of
from slimseg.progress import Progress
from slimseg.runtimes import host
from slimseg.training import device, losses
from slimseg.training.data import Folder

BATCH_SIZE = 8


def measured(graph: Graph, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The importance of each output channel: a tensor (channels,) for each convolution, by node name.

    Args:
        graph: the network, which is not changed.
        batches: batches of preprocessed images (N, 3, H, W); some dozens of images are enough.
    """
    network = graph.copy()
    network.module.requires_grad_(True)
    scored = logits_of(network)  # shares the layers of `network`
    found: dict[str, Tensor] = {}
    with device.on_best(network.module, scored.module) as where:
        for images in batches:
            network.module.zero_grad(set_to_none=True)
            logits = losses.two_classes(scored(images.to(where).contiguous(memory_format=torch.channels_last)))
            torch.autograd.backward(F.cross_entropy(logits, logits.detach().argmax(1)))
            for node in network.layers():
                layer = network.layer(node)
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.weight.grad is not None:
                    scores = _of_filters(layer).cpu()
                    found[node.name] = found[node.name] + scores if node.name in found else scores
    return found


def measured_on(folder: Folder, graph: Graph, images: int, seed: int, progress: Progress) -> dict[str, Tensor]:
    """`measured` on some images of a folder's training split."""
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    values = np.stack([pipeline(image) for image in folder.sample_images(images, seed=seed)])
    batches = torch.split(nchw(values), BATCH_SIZE)
    return measured(graph, progress.track(batches, "measuring the importance of channels"))


def _of_filters(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """(channels,): the squared sum of weight times gradient over the filters of each output channel."""
    assert layer.weight.grad is not None
    return filters(layer, layer.weight.detach() * layer.weight.grad).sum(1).square()
