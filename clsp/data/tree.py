"""Walks an image folder: train/<class>/*, test/<class>/* and perhaps val/<class>/*.

Below a class any depth is read; the class is the first level. Left out are hidden files and
folders, the clutter that file managers leave, and the notes listed in NOTES. Everything else has
to be an image: a file that cannot be read later is an error, never skipped.
"""

import logging
import os
from pathlib import Path

from clsp.runtime.errors import DataError

CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}
NOTES = {".txt", ".csv", ".json", ".md"}
SPLITS = ("train", "val", "test")

log = logging.getLogger(__name__)


def is_skipped(name: str) -> bool:
    """Whether a file or folder of that name is not part of the data."""
    lower = name.lower()
    return lower.startswith(".") or lower in CLUTTER or Path(lower).suffix in NOTES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if not is_skipped(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted(kept, key=lambda entry: entry.name)


def _files(folder: Path) -> list[Path]:
    """Files below a class folder, sorted; links to files are followed, links to folders not."""
    found = []
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            found += _files(Path(entry.path))
        else:
            found.append(Path(entry.path))
    return found


def _class_folders(split: Path) -> dict[str, Path]:
    entries = _entries(split)
    loose = [entry.name for entry in entries if not entry.is_dir()]
    if loose:
        raise DataError(
            f"{split / loose[0]}: lies outside a class folder; expected {split}/<class>/{loose[0]}"
        )
    for entry in entries:  # it names a class, and classes are written down
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{split}: the folder name {entry.name!r} is not UTF-8") from None
    return {entry.name: Path(entry.path) for entry in entries}


def walk(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Files of an image folder: split -> class -> sorted paths. A split without folder is absent.

    Raises:
        DataError: If the folder, train/ or test/ is missing or empty, a class has no images, or
            test or val has a class that train lacks.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; expected train/<class>/* and test/<class>/* in it"
        )
    here = [entry.name for entry in _entries(root)]
    found: dict[str, dict[str, list[Path]]] = {}
    for split in SPLITS:
        if not (root / split).is_dir():
            if split == "val":
                continue
            listed = ", ".join(here[:8]) or "nothing"
            raise DataError(f"{root}: has no folder {split}/<class>/*; it holds {listed}")
        folders = _class_folders(root / split)
        if not folders:
            raise DataError(f"{root / split}: empty; expected one folder per class")
        found[split] = {name: _files(folder) for name, folder in folders.items()}
        for name, files in found[split].items():
            if not files:
                raise DataError(f"{folders[name]}: class {name!r} has no images")
            if name not in found["train"]:
                raise DataError(f"{folders[name]}: class {name!r} is not in {root / 'train'}")
    return found


def ignored(root: Path) -> list[str]:
    """Folders beside train, val and test; worth a warning, as "valid" may be meant as "val"."""
    return [e.name for e in _entries(root) if e.is_dir() and e.name not in SPLITS]
