"""Batches for training: the user's images, augmented and preprocessed, without end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.host import resize_image
from slimseg.training import augment, distil
from slimseg.training.data import Folder, read_pair, resized_mask

BATCH_SIZE = 8


class Batches:
    """Endless preprocessed, augmented batches of training images, kept in memory at `size` (height, width).

    Their images have the graph's input size; if `size` differs, each batch also has them at `size`, as `large`.
    """

    def __init__(self, graph: Graph, folder: Folder, with_labels: bool, seed: int, size: tuple[int, int]) -> None:
        self.preprocessing = graph.description.preprocessing
        self.small = None if graph.input_size == size else graph.input_size
        images, masks = [], []
        for index in range(len(folder.train.images)):
            image, mask = read_pair(folder.train, index)
            images.append(resize_image(image, size))
            if with_labels and mask is not None:
                masks.append(resized_mask(mask, size))
        self.images = nchw(np.stack(images))
        self.masks = torch.from_numpy(np.stack(masks)).long() if masks else None
        self.augment = augment.augmentation(size)
        # under `torchrun` every process has its own order of images
        self.generator = torch.Generator().manual_seed(seed + int(os.environ.get("RANK", "0")))

    def __iter__(self) -> Iterator[distil.Batch]:
        while True:
            order = torch.randperm(len(self.images), generator=self.generator)
            for chosen in torch.split(order, BATCH_SIZE):
                masks = None if self.masks is None else self.masks[chosen]
                images, masks = augment.apply(self.augment, self.images[chosen].float() / 255, masks)
                yield self._batch(images, masks)

    def _batch(self, images: Tensor, masks: Tensor | None) -> distil.Batch:
        if self.small is None:
            return distil.Batch(preprocess(images, self.preprocessing), masks)
        reduced = F.interpolate(images, self.small, mode="bilinear", antialias=True)
        if masks is not None:
            masks = F.interpolate(masks[:, None].float(), self.small, mode="nearest-exact")[:, 0].long()
        return distil.Batch(preprocess(reduced, self.preprocessing), masks, preprocess(images, self.preprocessing))


def preprocess(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """RGB images (N, 3, H, W) in [0, 1] to the network's input."""
    ordered = images.flip(1) if preprocessing.channel_order == "bgr" else images
    mean, std = (
        torch.tensor(values, dtype=images.dtype).reshape(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return ((255 * ordered - mean) / std).contiguous(memory_format=torch.channels_last)


def translated(images: Tensor, old: Preprocessing, new: Preprocessing) -> Tensor:
    """Images (N, 3, H, W) preprocessed by `old`, converted to the preprocessing `new` of another network."""
    if old == new:
        return images
    values = ((old.mean, old.std), (new.mean, new.std))
    (old_mean, old_std), (new_mean, new_std) = (
        (torch.tensor(each, dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1) for each in pair)
        for pair in values
    )
    images = images * old_std + old_mean
    if old.channel_order != new.channel_order:
        images = images.flip(1)
    return (images - new_mean) / new_std
