"""Finds the folders of some classes in a user's copy of ImageNet; opens no image.

Imported by the Snakefile while it parses, through clsp.data.fingerprint.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from clsp.data.tree import is_skipped
from clsp.runtime.errors import DataError

SPLITS = ("train", "val")
SORTING = (
    "sort the images into val/<wnid>/, as torchvision.datasets.ImageNet(root, 'val') does when "
    "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz lie in root"
)

Found = dict[str, dict[str, list[Path]]]  # split -> wnid -> images


def _names(folder: Path) -> list[str]:
    """What a class folder holds, sorted, without clutter."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not is_skipped(entry.name))
    except NotADirectoryError:
        raise DataError(f"{folder}: expected a folder of images, found a file") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _check_folders(folder: Path, wnids: Iterable[str]) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected {folder.parent}/train/<wnid>/* and "
            f"{folder.parent}/val/<wnid>/*"
        )
    wanted = list(wnids)
    absent = [wnid for wnid in wanted if not (folder / wnid).exists()]
    if absent and len(absent) == len(wanted):
        with os.scandir(folder) as entries:
            loose = next((entry.name for entry in entries if entry.is_file()), None)
        if loose is not None and folder.name == "val":
            raise DataError(f"{folder}: holds images such as {loose} and no classes; {SORTING}")
        raise DataError(f"{folder}: holds none of the {len(wanted)} class folders, as {absent[0]}")
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(f"{folder}: lacks the class folder {absent[0]}{more}")


def class_folders(root: Path, wnids: Iterable[str]) -> Iterator[Path]:
    """The folders of some classes, <split>/<wnid> below root, wnids in the order given.

    Raises:
        DataError: If one is missing.
    """
    wanted = list(wnids)
    for split in SPLITS:
        _check_folders(root / split, wanted)
        yield from (root / split / wnid for wnid in wanted)


def images_in(folder: Path) -> list[Path]:
    """Images of one class folder, sorted.

    Raises:
        DataError: If there are none, or it cannot be read.
    """
    found = [folder / name for name in _names(folder)]
    if not found:
        raise DataError(f"{folder}: class {folder.name} has no images in {folder.parent.name}")
    return found


def find_images(root: Path, wnids: Iterable[str]) -> Found:
    """Images of some classes.

    Args:
        root: Holds train/<wnid>/* and val/<wnid>/*.
        wnids: Classes to look for; other folders are passed over.

    Returns:
        split -> wnid -> sorted paths, wnids in the order given.

    Raises:
        DataError: Naming root and wnid, if a folder is missing or empty.
    """
    found: Found = {split: {} for split in SPLITS}
    for folder in class_folders(root, wnids):
        found[folder.parent.name][folder.name] = images_in(folder)
    return found
