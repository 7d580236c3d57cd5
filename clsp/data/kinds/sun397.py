"""SUN397: SUN397/<letter>/<class>/sun_<id>.jpg, SUN397/{Training,Testing}_<partition>.txt.

Ten official partitions of 50 images for training and 50 for testing per class; an image that a
partition does not list is not used. torchvision's class knows none of them. Some files are no JPEG
in spite of their names (tensorflow-datasets found BMP, PNG and GIF): they are read as they are.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Item, Source
from clsp.data.listing import file_item, read_lines, refuse_repeats
from clsp.runtime.errors import DataError

FOLDER = "SUN397"
LISTS = {"train": "Training", "test": "Testing"}
NAMES = "ClassName.txt"
PARTITIONS = 10


class Config(FetchedConfig):
    """Which of the official partitions is used."""

    partition: Annotated[int, Field(ge=1, le=10)] | None = None  # None: 1, as transfer studies do


def _read_classes(path: Path) -> dict[str, int]:
    """Label by folder; lines are /<first letter>/<class>, where a class may hold a slash."""
    folders = read_lines(path)
    for folder in folders:
        if folder.count("/") < 2 or not folder.startswith("/") or folder.index("/", 1) != 2:
            raise DataError(f"{path}: expected /letter/class, found {folder!r}")
    if len(set(folders)) != len(folders):
        raise DataError(f"{path}: names a class twice")
    return {folder: label for label, folder in enumerate(folders)}


def _read_list(path: Path, folder: Path, labels: dict[str, int]) -> list[Item]:
    """Images of one list; lines are /<letter>/<class>/sun_<id>.jpg."""
    items = []
    for line in read_lines(path):
        label = labels.get(line.rpartition("/")[0])
        if label is None:
            raise DataError(
                f"{path}: expected /letter/class/name.jpg of a class of {NAMES}, found {line!r}"
            )
        items.append(file_item(folder / line[1:], label, folder))
    absent = set(labels.values()) - {item.label for item in items}
    if absent:
        raise DataError(f"{path}: lists no image of {list(labels)[min(absent)]!r}")
    return items


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    folder, partition = files / FOLDER, config.partition or 1
    labels = _read_classes(folder / NAMES)
    splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for split, name in LISTS.items():
        splits[split] = _read_list(folder / f"{name}_{partition:02d}.txt", folder, labels)
    refuse_repeats(splits, folder)
    return Source(tuple(name[3:] for name in labels), splits)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    names = [
        "/a/abbey",
        "/a/airplane_cabin",
        "/a/airport_terminal",
        "/a/alley",
        "/a/apartment_building/outdoor",
    ]

    def name_of(label: int, number: int) -> str:
        return f"{names[label]}/sun_{number:015d}.jpg"

    folder = files / FOLDER
    miniature.write_lines(folder / NAMES, names)
    for split in ("train", "val", "test"):  # the middle ones are in no list of partition 1
        for label, number in miniature.examples(split, len(names)):
            image = miniature.paint(motifs.scenes, seed, "sun397", label, number)
            miniature.save_jpeg(folder / name_of(label, number)[1:], image)
    for partition in range(1, PARTITIONS + 1):
        for split, name in LISTS.items():
            lines = [name_of(*pair) for pair in miniature.examples(split, len(names), partition)]
            miniature.write_lines(folder / f"{name}_{partition:02d}.txt", sorted(lines))
