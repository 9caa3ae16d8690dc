"""Augmentation of images and masks by kornia, with random numbers of torch's generator (so a seed repeats it)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from slimseg.training.data import IGNORED


def augmentation(size: tuple[int, int], geometry: bool = True) -> nn.Module:
    """Flip, random crop at 70-100% of the area, and colour jitter, for inputs of `size` (height, width).

    Without `geometry` only colours change, so that stored teacher outputs stay valid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kornia import augmentation as K

        steps: list[nn.Module] = [K.ColorJiggle(0.2, 0.2, 0.2, 0.0, p=0.6)]  # hue takes seven times as long as the rest
        if geometry:
            ratio = (0.9 * size[1] / size[0], 1.1 * size[1] / size[0])
            steps = [K.RandomHorizontalFlip(p=0.5), K.RandomResizedCrop(size, (0.7, 1.0), ratio, p=0.5), *steps]
        sequence: nn.Module = K.AugmentationSequential(*steps, data_keys=["input", "mask"], extra_args={})
        return sequence


def apply(augment: nn.Module, images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Augment images (N, 3, H, W) in [0, 1] and masks (N, H, W) the same way."""
    given = masks if masks is not None else torch.zeros(len(images), *images.shape[2:], device=images.device)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed, moved = augment(images, given[:, None].float())
    if masks is None:
        return changed.clamp(0, 1), None
    rounded = moved[:, 0].round().long()
    # kornia blends masks where it resamples a crop; only integer values are labels
    rounded[(moved[:, 0] - rounded).abs() > 1e-3] = IGNORED
    return changed.clamp(0, 1), rounded
