"""The user's images: a folder with train/val x images/masks, or images alone. Every bad one is one clear sentence."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from slimseg.errors import DataError

IGNORED = 255  # mask value that counts for nothing
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS = 100_000_000
VALIDATION_SHARE = 0.2  # of a folder that has no split of its own

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """Images, and their masks where there are labels (same order)."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None


@dataclass(frozen=True)
class Folder:
    """What was found in the user's folder."""

    path: Path
    train: Split
    val: Split
    classes: tuple[str, ...]  # empty without a classes.txt

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured."""
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


def open_folder(path: str | Path) -> Folder:
    """Find images and masks.

    A folder with `train` and `val` (each with `images` and perhaps `masks`), or with `images` (and perhaps `masks`),
    or of images alone; the latter two are split by a hash of each name, the same way every time.

    Raises:
        DataError: the folder is missing or empty, or masks are missing.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give a folder of images")
    classes = _classes(root / "classes.txt")
    if (root / "train").is_dir() or (root / "val").is_dir():
        if not (root / "train").is_dir() or not (root / "val").is_dir():
            raise DataError(f"{root} has only one of train and val: give both, or one folder of images")
        return Folder(root, _split(root / "train"), _split(root / "val"), classes)
    return Folder(root, *_divided(_split(root)), classes)


def _classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no text file with one class name a line") from error


def _split(folder: Path) -> Split:
    inside = folder / "images" if (folder / "images").is_dir() else folder
    images = tuple(sorted(each for each in inside.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES))
    if not images:
        raise DataError(f"{inside} has no images ({', '.join(IMAGE_SUFFIXES)}): give a folder that has some")
    if not (folder / "masks").is_dir():
        return Split(images, None)
    masks = {each.stem: each for each in (folder / "masks").iterdir() if each.suffix.lower() == ".png"}
    missing = [image.name for image in images if image.stem not in masks]
    if missing:
        raise DataError(
            f"{folder / 'masks'} has no mask for {missing[0]}"
            + (f" and {len(missing) - 1} more images" if len(missing) > 1 else "")
            + ": give a PNG of the same name for every image, or no masks at all"
        )
    return Split(images, tuple(masks[image.stem] for image in images))


def _divided(split: Split) -> tuple[Split, Split]:
    order = sorted(
        range(len(split.images)), key=lambda index: hashlib.sha256(split.images[index].stem.encode()).digest()
    )
    cut = max(1, round(len(order) * VALIDATION_SHARE)) if len(order) > 1 else 0
    val, train = sorted(order[:cut]), sorted(order[cut:])
    return _chosen(split, train), _chosen(split, val or train)


def _chosen(split: Split, indices: Sequence[int]) -> Split:
    masks = None if split.masks is None else tuple(split.masks[index] for index in indices)
    return Split(tuple(split.images[index] for index in indices), masks)


def read_image(path: Path) -> Pixels:
    """RGB bytes (height, width, 3).

    Raises:
        DataError: it is no image, a broken one, or one of absurd size.
    """
    picture = _open(path)
    _require_bytes(path, picture)
    # a palette with transparency goes to RGB by way of RGBA, as Pillow asks for
    return np.array((picture.convert("RGBA") if "transparency" in picture.info else picture).convert("RGB"))


def _require_bytes(path: Path, picture: Image.Image) -> None:
    """Pillow turns wider numbers into bytes by cutting off all above 255: a white picture."""
    if picture.mode.partition(";")[0] in ("I", "F"):
        raise DataError(f"{path} has more than 8 bits per channel ({picture.mode}): convert it to 8 bits")


def read_mask(path: Path, classes: int | None = None) -> Pixels:
    """Class indices (height, width), 255 ignored.

    Raises:
        DataError: it is no mask of indices, or an index is not below `classes`.
    """
    picture = _open(path)
    if picture.mode not in ("L", "P", "I", "I;16", "1"):
        raise DataError(f"{path} is a {picture.mode} picture, not a mask: give a PNG of class indices, one channel")
    mask = np.array(picture)
    known = IGNORED if classes is None else classes
    wrong = mask[(mask != IGNORED) & ((mask >= known) | (mask < 0))]
    if wrong.size:
        there_are = f"at most {known}" if classes is None else f"{known}"
        raise DataError(
            f"{path} has class {int(wrong.flat[0])}, but there are {there_are} classes (0-{known - 1}, 255 ignored)"
        )
    return mask.astype(np.uint8)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(f"{path} has {picture.width}x{picture.height} pixels, too many: scale it down")
                picture.load()
                return picture
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read: remove or replace it") from error
    except Image.DecompressionBombWarning as error:
        raise DataError(f"{path} has too many pixels: scale it down") from error


def read_pair(split: Split, index: int, classes: int | None = None) -> tuple[Pixels, Pixels | None]:
    """One image and its mask.

    Raises:
        DataError: either cannot be read, or their sizes differ.
    """
    image = read_image(split.images[index])
    if split.masks is None:
        return image, None
    mask = read_mask(split.masks[index], classes)
    _require_size(split.masks[index], mask, (image.shape[0], image.shape[1]))
    return image, mask


def check_split(split: Split, classes: int) -> None:
    """Look at every image and mask before hours are spent: 1-2 ms each, as of images only the headers are read.

    Raises:
        DataError: an image or mask cannot be read, a mask has a class that is not below `classes`, or another size
            than its image.
    """
    for index, image in enumerate(split.images):
        size = _size_in_header(image)
        if split.masks is not None:
            _require_size(split.masks[index], read_mask(split.masks[index], classes), size)


def _size_in_header(image: Path) -> tuple[int, int]:
    try:
        with Image.open(image) as picture:
            _require_bytes(image, picture)
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{image} is not an image that can be read: remove or replace it") from error


def _require_size(path: Path, mask: Pixels, size: tuple[int, int]) -> None:
    if mask.shape != size:
        raise DataError(
            f"{path} is {mask.shape[0]}x{mask.shape[1]}, its image {size[0]}x{size[1]}: "
            "give masks of their images' size"
        )


def resized_mask(mask: Pixels, size: tuple[int, int]) -> Pixels:
    """Nearest neighbour, to (height, width)."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))
