"""PASCAL VOC 2007, classification: VOCdevkit/VOC2007/ImageSets/Main and JPEGImages.

An image shows several classes. `<class>_<split>.txt` says of every image of a split 1: shown; -1:
not shown; 0: shown, but hard to make out. Hard ones count as not shown (methods.md 4). torchvision
offers detection and segmentation alone.
"""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Item, Source
from clsp.data.listing import file_item, read_lines, refuse_repeats
from clsp.runtime.errors import DataError
from clsp.runtime.keys import numpy_stream

FOLDER = "VOCdevkit/VOC2007"
LISTS = "ImageSets/Main"
IMAGES = "JPEGImages"
SPLITS = ("train", "val", "test")
SHOWN, HARD, ABSENT = 1, 0, -1


class Config(FetchedConfig):
    """No options of its own."""


def _read_flags(path: Path, names: list[str]) -> np.ndarray:
    """Whether a class is shown, bool (N,); lines are name and flag, in the order of `names`."""
    lines = [line.split() for line in read_lines(path)]
    flags = {str(flag): flag for flag in (SHOWN, HARD, ABSENT)}
    for parts in lines:
        if len(parts) != 2 or parts[1] not in flags:
            raise DataError(f"{path}: expected name and 1, 0 or -1, found {' '.join(parts)!r}")
    if [name for name, _ in lines] != names:
        odd = sorted({name for name, _ in lines} ^ set(names))
        raise DataError(
            f"{path}: {len(lines)} images, expected the {len(names)} of the split's own list in "
            f"its order{'; differs in ' + ', '.join(odd[:3]) if odd else ''}"
        )
    return np.array([flags[flag] == SHOWN for _, flag in lines])


def _class_names(lists: Path) -> tuple[str, ...]:
    """From the names of the files; every class needs one for each split."""
    found = {s: {p.name[: -len(f"_{s}.txt")] for p in lists.glob(f"*_{s}.txt")} for s in SPLITS}
    every = sorted(set.union(*found.values()))
    if not every:
        raise DataError(f"{lists}: no such folder, or it holds no <class>_train.txt")
    for split, names in found.items():
        absent = sorted(set(every) - names)
        if absent:
            raise DataError(f"{lists / f'{absent[0]}_{split}.txt'}: no such file")
    return tuple(every)


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    folder = files / FOLDER
    lists = folder / LISTS
    classes = _class_names(lists)
    splits: dict[str, list[Item]] = {}
    for split in SPLITS:
        names = [line.split()[0] for line in read_lines(lists / f"{split}.txt")]
        shown = np.stack([_read_flags(lists / f"{c}_{split}.txt", names) for c in classes], axis=1)
        splits[split] = [
            file_item(folder / IMAGES / f"{name}.jpg", tuple(np.flatnonzero(row).tolist()), folder)
            for name, row in zip(names, shown, strict=True)
        ]
    refuse_repeats(splits, lists)
    return Source(classes, splits, multilabel=True)


def _flags(seed: int, label: int, number: int, classes: int) -> list[int]:
    """What a miniature image shows: its own class, perhaps others, perhaps one that is hard."""
    stream = numpy_stream(seed, "miniature", "voc2007: flags", label, number)
    flags = np.where(stream.uniform(size=classes) < 0.2, SHOWN, ABSENT)
    flags[stream.integers(classes)] = HARD
    flags[label] = SHOWN
    return flags.tolist()


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    classes = ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    folder = files / FOLDER
    for split in SPLITS:
        lines: dict[str, list[str]] = {f"{name}_{split}": [] for name in classes}
        names = []
        for label, number in miniature.examples(split, len(classes)):
            place = number * len(classes) + label
            name = f"{1 + place:06d}"
            names.append(name)
            flags = _flags(seed, label, number, len(classes))
            shown = sum(1 << bit for bit, flag in enumerate(flags) if flag == SHOWN)
            image = miniature.paint(motifs.objects, seed, "voc2007", shown, place)
            miniature.save_jpeg(folder / IMAGES / f"{name}.jpg", image)
            for class_name, flag in zip(classes, flags, strict=True):
                lines[f"{class_name}_{split}"].append(f"{name} {flag:2d}")
        for list_name, listed in {**lines, split: names}.items():
            miniature.write_lines(folder / LISTS / f"{list_name}.txt", listed)
