"""Which files of a folder are images and masks, and notes for the user on the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimseg.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif")
MASK_SUFFIX = ".png"
# Images that are not read, which the user is told. Other files (text, tables) are ignored silently.
_OTHER_IMAGES = frozenset((
    ".heic", ".heif", ".hif", ".avif", ".gif", ".apng", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf",
    ".rw2", ".raf", ".pef", ".srw", ".raw", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".psd", ".tga", ".exr", ".hdr",
    ".ppm", ".pgm", ".pnm", ".pbm", ".pfm", ".ico", ".svg", ".eps", ".ps", ".pdf", ".dcm", ".nii", ".fits", ".npy",
    ".npz", ".mp4", ".mov", ".avi", ".mkv", ".webm",
))  # fmt: skip
_CALLED_IMAGES = "PNG, JPEG, WebP, BMP and TIFF"
_CLASSES_BYTES = 1_000_000  # most bytes read of a classes.txt
VALIDATION_SHARE = 0.2  # share of the images for validation in a folder without train and val, 0-1


@dataclass(frozen=True)
class Part:
    """Images of one folder in the order of their names, their masks if there are any, and notes for the user."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...] | None
    notes: tuple[str, ...]


def found(folder: Path) -> Part:
    """The images in `folder/images`, else in `folder`, and the masks in `folder/masks`.

    Raises:
        DataError: there is no image, two images have the same name, or a mask is missing.
    """
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files = _files(inside)
    images = tuple(each for each in files if each.suffix.lower() in IMAGE_SUFFIXES)
    others = [each for each in files if each.suffix.lower() in _OTHER_IMAGES]
    if not images:
        raise DataError(_no_images(inside, others))
    _require_different(images)
    masks, notes = _masks(folder, images)
    if others:
        notes.insert(
            0, f"{_counted(others, 'file')} in {inside} left out: only {_CALLED_IMAGES} are read, so convert the others"
        )
    return Part(images, masks, tuple(notes))


def divided(images: Sequence[Path]) -> tuple[list[int], list[int]]:
    """Indices of images for training and for validation, by a hash of each name; a single image is in both."""
    order = sorted(range(len(images)), key=lambda index: hashlib.sha256(images[index].stem.encode()).digest())
    cut = max(1, round(len(order) * VALIDATION_SHARE)) if len(order) > 1 else 0
    val, train = sorted(order[:cut]), sorted(order[cut:])
    return train, val or train


def classes(root: Path) -> tuple[str, ...]:
    """Class names in `root/classes.txt`, one a line; empty if there is no such file.

    Raises:
        DataError: the file is no text.
    """
    path = root / "classes.txt"
    if not path.is_file():
        return ()
    try:
        with path.open("rb") as file:
            text = file.read(_CLASSES_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a text file with one class name per line") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _files(folder: Path) -> list[Path]:
    """All files in a folder but hidden ones, sorted.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error


def _no_images(folder: Path, others: Sequence[Path]) -> str:
    if others:
        return f"{folder} has no images in a format that is read: convert its {_counted(others, 'file')} to PNG or JPEG"
    beneath = sorted({each.parent.name for each in folder.glob("*/*") if each.suffix.lower() in IMAGE_SUFFIXES})
    hint = f", for example {folder / beneath[0]}" if beneath else ""
    return f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}): give a folder with images{hint}"


def _require_different(images: Sequence[Path]) -> None:
    """Raise DataError if two images differ only in their suffix, as masks and results are named without it."""
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(image.stem, image)
        if other is not image:
            raise DataError(
                f"{image.parent} has two images with the same name, {other.name} and {image.name}: rename one, and "
                "put masks into a folder `masks` beside a folder `images`"
            )


def _masks(folder: Path, images: Sequence[Path]) -> tuple[tuple[Path, ...] | None, list[str]]:
    """(a mask for every image, or None; notes for the user)."""
    inside = folder / "masks"
    if not inside.is_dir():
        return None, _elsewhere(folder)
    files = _files(inside)
    masks: dict[str, Path] = {}
    for each in (each for each in files if each.suffix.lower() == MASK_SUFFIX):
        if each.stem in masks:
            raise DataError(
                f"{inside} has two masks with the same name, {masks[each.stem].name} and {each.name}: remove one"
            )
        masks[each.stem] = each
    missing = [image for image in images if image.stem not in masks]
    if missing:
        raise DataError(_no_mask(inside, missing, files))
    names = {image.stem for image in images}
    alone = [mask for stem, mask in masks.items() if stem not in names]
    notes = [f"{_counted(alone, 'mask')} in {inside} left out: no image has the same name"] if alone else []
    return tuple(masks[image.stem] for image in images), notes


def _no_mask(folder: Path, missing: Sequence[Path], files: Sequence[Path]) -> str:
    first = missing[0]
    more = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
    like = next((each.name for each in files if each.stem.startswith(first.stem)), "")
    instead = f" (there is {like})" if like else ""
    return (
        f"{folder} has no mask for {first.name}{more}, expected as {first.stem}{MASK_SUFFIX}{instead}: "
        "give a PNG with the same name for every image, or no masks at all"
    )


def _elsewhere(folder: Path) -> list[str]:
    """A note on a folder of another name than `masks` that may hold masks; empty if there is none."""
    with_pngs = [
        each.name
        for each in _files(folder)
        if each.is_dir() and each.name not in ("images", "train", "val") and next(each.glob("*.[pP][nN][gG]"), None)
    ]
    if not with_pngs:
        return []
    return [f"{with_pngs[0]} in {folder} is left out: masks belong in {folder / 'masks'}, which does not exist"]


def _counted(files: Sequence[Path], noun: str) -> str:
    """A number of files in words: "3 files (2 .heic, 1 .gif; IMG_1.heic for one)"."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in _suffixes(files))
    return f"{len(files)} {noun}{'s' * (len(files) > 1)} ({kinds}; for example {files[0].name})"


def _suffixes(files: Iterable[Path]) -> list[tuple[str, int]]:
    return Counter(each.suffix.lower() for each in files).most_common()
