"""The user's images: a folder with train/val x images/masks, or images alone. A bad file gives one clear sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from slimseg.errors import DataError
from slimseg.progress import Progress
from slimseg.training import listing, masks, pictures
from slimseg.training.masks import CLASS_INDICES, IGNORED, Meaning, read_mask
from slimseg.training.pictures import Pixels, read_image

__all__ = [
    "IGNORED",
    "Folder",
    "Pixels",
    "Split",
    "check_split",
    "open_folder",
    "read_image",
    "read_mask",
    "read_pair",
    "resized_mask",
    "say_notes",
]

LOOKED_AT = 300  # most masks that are read to find out what their values mean


@dataclass(frozen=True)
class Split:
    """Images, and their masks in the same order if there are labels, with the meaning of the masks' values."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None
    meaning: Meaning = CLASS_INDICES

    def chosen(self, indices: Sequence[int]) -> Split:
        """Some of the images, with their masks."""
        images = tuple(self.images[index] for index in indices)
        chosen = None if self.masks is None else tuple(self.masks[index] for index in indices)
        return replace(self, images=images, masks=chosen)

    def spread(self, count: int) -> Split:
        """At most `count` of the images, evenly spread."""
        total = len(self.images)
        return self.chosen([int(index) for index in np.linspace(0, total - 1, min(count, total)).round()])


@dataclass(frozen=True)
class Folder:
    """The images, masks and class names found in the user's folder."""

    path: Path
    train: Split
    val: Split
    classes: tuple[str, ...]  # empty without a classes.txt
    notes: tuple[str, ...] = ()  # for the user: files that were left out, how masks are interpreted

    @property
    def labelled(self) -> bool:
        """Whether there are labels for validation, so that accuracy can be measured."""
        return self.val.masks is not None

    def split(self, name: str) -> Split:
        """The split "train" or "val".

        Raises:
            DataError: there is no such split.
        """
        if name not in ("train", "val"):
            raise DataError(f"{self.path} has no split {name!r}: give train or val")
        return self.train if name == "train" else self.val

    def sample_images(self, count: int, seed: int = 0) -> list[Pixels]:
        """Up to `count` training images, RGB (height, width, 3), drawn without replacement."""
        paths = list(self.train.images)
        chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
        return [read_image(paths[index]) for index in chosen]


def open_folder(path: str | Path | Folder, foreground: int | str | None = None) -> Folder:
    """Find images and masks.

    The folder has `train` and `val` (each with `images` and perhaps `masks`), or `images` (and perhaps `masks`), or
    images alone. The latter two are split by a hash of each name, the same way every time.

    Args:
        path: the folder; a `Folder` is returned as it is, unless `foreground` is given.
        foreground: in masks of two classes, the value of the second (1 in the network's output); "none" if values are
            class indices and 255 is ignored. By default, masks with only the values 0 and 255 have two classes, and all
            others have class indices.

    Raises:
        DataError: the folder is missing or empty, masks are missing, all masks are 255 throughout (ignored), or none
            has the foreground's value.
    """
    if isinstance(path, Folder):
        return path if foreground is None else open_folder(path.path, foreground)
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give a folder of images")
    if (root / "train").is_dir() or (root / "val").is_dir():
        if not (root / "train").is_dir() or not (root / "val").is_dir():
            raise DataError(f"{root} has only one of train and val: give both, or one folder of images")
        parts = [listing.found(root / "train"), listing.found(root / "val")]
        train, val = (Split(part.images, part.masks) for part in parts)
    else:
        parts = [listing.found(root)]
        whole = Split(parts[0].images, parts[0].masks)
        train, val = (whole.chosen(indices) for indices in listing.divided(whole.images))
    folder = Folder(root, train, val, listing.classes(root), tuple(note for part in parts for note in part.notes))
    return _understood(folder, masks.as_foreground(foreground) if foreground is not None else None)


def say_notes(folder: Folder, progress: Progress) -> None:
    """Show the user the folder's notes."""
    for note in folder.notes:
        progress.say(f"note: {note}")


def _understood(folder: Folder, told: Meaning | None) -> Folder:
    """The folder with the meaning of its masks' values: `told` by the user, else inferred from all masks together."""
    labelled = [split for split in (folder.train, folder.val) if split.masks is not None]
    if not labelled and told:
        raise DataError(f"`foreground` describes masks, and {folder.path} has none: leave it out, or add masks")
    if not labelled:
        return folder
    paths = [path for split in labelled for path in split.spread(LOOKED_AT // len(labelled)).masks or ()]
    meaning = told or Meaning(masks.foreground_of(paths))
    notes = [] if told else masks.notes(folder.path, meaning)
    if told and told.foreground is not None:
        masks.require_somewhere(paths, told.foreground)
    turned, as_stored = _turned(labelled)
    if turned:
        how = "turned with them" if as_stored else "left unchanged"
        notes.append(
            f"photographs are turned upright by their EXIF data, for example {turned.name}; their masks are {how}"
        )
    meaning = replace(meaning, as_stored=as_stored)
    train, val = (
        split if split.masks is None else replace(split, meaning=meaning) for split in (folder.train, folder.val)
    )
    return replace(folder, train=train, val=val, notes=(*folder.notes, *notes))


def _turned(splits: Sequence[Split]) -> tuple[Path | None, bool]:
    """A photograph that EXIF turns, if there is one, and whether masks are oriented as their photographs are stored.

    Sizes show this for photographs that EXIF turns by 90 degrees; without any, masks are taken to be upright.
    """
    turned, as_stored = None, False
    for split in (each.spread(LOOKED_AT // len(splits)) for each in splits):
        for image, mask in zip(split.images, split.masks or (), strict=True):
            try:
                header = pictures.read_header(image)
                if header.orientation == pictures.UPRIGHT:
                    continue
                turned = turned or image
                own = pictures.read_header(mask)
            except DataError:
                continue  # reported when it is used
            as_stored |= own.orientation == pictures.UPRIGHT and own.size == header.size[::-1] != header.size
    return turned, as_stored


def read_pair(split: Split, index: int, classes: int | None = None) -> tuple[Pixels, Pixels | None]:
    """One image, RGB (height, width, 3), and its mask (height, width), both upright.

    Raises:
        DataError: either cannot be read, or their sizes differ.
    """
    if split.masks is None:
        return read_image(split.images[index]), None
    photograph = pictures.read_photograph(split.images[index])
    mask = masks.read(split.masks[index], classes, split.meaning)
    size = (photograph.pixels.shape[0], photograph.pixels.shape[1])
    if mask.turned or photograph.orientation == pictures.UPRIGHT:
        fitted = mask.pixels
    else:
        turned = pictures.upright(mask.pixels, photograph.orientation)
        fits_both = turned.shape == mask.pixels.shape == size
        as_stored = split.meaning.as_stored if fits_both else turned.shape == size
        fitted = turned if as_stored else mask.pixels
    _require_size(split.masks[index], fitted, size)
    return photograph.pixels, fitted


def check_split(split: Split, classes: int) -> None:
    """Check every image and mask before hours of training: 1-2 ms each, as only the headers of images are read.

    Raises:
        DataError: an image or mask cannot be read, a mask has a class that is not below `classes`, or its size differs
            from its image's.
    """
    for index, image in enumerate(split.images):
        size = pictures.read_header(image).size
        if split.masks is not None:
            mask = read_mask(split.masks[index], classes, split.meaning)
            if mask.shape != size:
                read_pair(split, index, classes)  # raises unless EXIF data explain the difference


def _require_size(path: Path, mask: Pixels, size: tuple[int, int]) -> None:
    if mask.shape != size:
        raise DataError(
            f"{path} is {mask.shape[0]}x{mask.shape[1]}, but its image is {size[0]}x{size[1]}: "
            "give masks of their images' size"
        )


def resized_mask(mask: Pixels, size: tuple[int, int]) -> Pixels:
    """The mask resized to (height, width) by nearest neighbour."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))
