"""FGVC-Aircraft: fgvc-aircraft-2013b/data/images_<level>_{train,val,test}.txt and data/images."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Item, Source
from clsp.data.pictures import open_picture
from clsp.data.torchvision_reader import read_source
from clsp.runtime.errors import DataError

FOLDER = "fgvc-aircraft-2013b"
SPLITS = ("train", "val", "test")
STRIP = 20  # pixels at the bottom of each photo: whose it is; part of no aircraft
LISTS = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}


class Config(FetchedConfig):
    """What a class is, and whether the strip stays."""

    level: Literal["variant", "family", "manufacturer"] | None = None  # None: variant
    # keep: as the transfer code of methods.md 4.1; crop: as the dataset's own page asks. None: keep
    strip: Literal["keep", "crop"] | None = None


def _open_without_strip(path: Path) -> Image.Image:
    photo = open_picture(path)
    if photo.height <= STRIP:
        raise DataError(f"{path}: {photo.height} pixels high, expected more than {STRIP}")
    return photo.crop((0, 0, photo.width, photo.height - STRIP))


def _without_strip(item: Item) -> Item:
    return replace(item, open=partial(_open_without_strip, item.path), path=None)


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`; lines are name and class.

    Raises:
        DataError: If a list is missing or malformed.
    """
    from torchvision.datasets import FGVCAircraft  # 3 s

    level, data = config.level or "variant", files / FOLDER / "data"

    def build(split: str) -> Any:
        return FGVCAircraft(files, split, level, loader=str)

    lists = {
        split: [data / f"images_{level}_{split}.txt", data / f"{LISTS[level]}.txt"]
        for split in SPLITS
    }
    source = read_source(build, lists, data)
    if config.strip != "crop":
        return source
    cropped = {split: list(map(_without_strip, items)) for split, items in source.splits.items()}
    return replace(source, splits=cropped)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    levels = {
        "variant": ["707-320", "727-200", "737-200", "737-300", "DC-9-30"],
        "family": ["Boeing 707", "Boeing 727", "Boeing 737", "Boeing 737", "DC-9"],
        "manufacturer": ["Boeing", "Boeing", "Boeing", "Boeing", "McDonnell Douglas"],
    }
    data = files / FOLDER / "data"
    for level, names in levels.items():
        miniature.write_lines(data / f"{LISTS[level]}.txt", sorted(set(names)))
    for split in SPLITS:
        lines: dict[str, list[str]] = {level: [] for level in levels}
        for label, number in miniature.examples(split, len(levels["variant"])):
            name = f"{1000000 + 1000 * number + label:07d}"
            image = miniature.paint(motifs.aircraft, seed, "aircraft", label, number)
            strip = np.full((STRIP, *image.shape[1:]), 235, np.uint8)
            miniature.save_jpeg(data / "images" / f"{name}.jpg", np.concatenate([image, strip]))
            for level, names in levels.items():
                lines[level].append(f"{name} {names[label]}")
        for level, listed in lines.items():
            miniature.write_lines(data / f"images_{level}_{split}.txt", listed)
        names_only = [line.split()[0] for line in lines["variant"]]
        miniature.write_lines(data / f"images_{split}.txt", names_only)
