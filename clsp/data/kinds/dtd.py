"""Describable Textures Dataset: dtd/labels/{train,val,test}<partition>.txt and dtd/images."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.torchvision_reader import read_source

FOLDER = "dtd"
SPLITS = ("train", "val", "test")
PARTITIONS = 10


class Config(FetchedConfig):
    """Which of the official partitions is used."""

    partition: Annotated[int, Field(ge=1, le=10)] | None = None  # None: 1, as transfer studies do


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`; lines are class/name.jpg.

    Raises:
        DataError: If a list is missing or malformed.
    """
    from torchvision.datasets import DTD  # 3 s

    class Textures(DTD):
        """DTD in the folder that its archive makes."""

    # torchvision puts that folder into one named after its class.
    Textures.__name__ = "."
    partition, folder = config.partition or 1, files / FOLDER

    def build(split: str) -> Any:
        return Textures(files, split, partition, loader=str)

    lists = {split: [folder / "labels" / f"{split}{partition}.txt"] for split in SPLITS}
    return read_source(build, lists, folder)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["banded", "blotchy", "chequered", "dotted", "zigzagged"]

    def name_of(label: int, number: int) -> str:
        return f"{names[label]}/{names[label]}_{number + 1:04d}.jpg"

    folder = files / FOLDER
    for split in SPLITS:
        for label, number in miniature.examples(split, len(names)):
            image = miniature.paint(motifs.textures, seed, "dtd", label, number)
            miniature.save_jpeg(folder / "images" / name_of(label, number), image)
        for partition in range(1, PARTITIONS + 1):
            lines = [name_of(*pair) for pair in miniature.examples(split, len(names), partition)]
            miniature.write_lines(folder / "labels" / f"{split}{partition}.txt", sorted(lines))
