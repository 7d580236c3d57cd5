"""Describable Textures Dataset, split 1 of 10: dtd/labels/{train,val,test}1.txt and dtd/images."""

from pathlib import Path

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Source
from clsp.data.listing import file_item, read_lines
from clsp.runtime.errors import DataError

FOLDER = "dtd"
PARTITION = 1  # of 10; the one that transfer studies report (methods.md 4.1)

INFO = DatasetInfo(
    title="Describable Textures (DTD)",
    license="research purposes",
    source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    citation="M. Cimpoi et al.: Describing textures in the wild. CVPR, 2014",
    metric="top1",
    archives=(
        Archive(
            url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            size=625239812,
            sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            folder="",
            prefix=f"{FOLDER}/",
            hosts=("robots.ox.ac.uk",),
            checked="size, sha256: tensorflow-datasets; md5: torchvision",
        ),
    ),
    note="Official partition 1 of 10.",
)


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`; lines are class/name.jpg.

    Raises:
        DataError: If a list is missing or malformed.
    """
    folder = files / FOLDER
    lists = {
        split: folder / "labels" / f"{split}{PARTITION}.txt" for split in ("train", "val", "test")
    }
    lines = {split: read_lines(path) for split, path in lists.items()}
    for split, names in lines.items():
        wrong = [name for name in names if name.count("/") != 1]
        if wrong:
            raise DataError(f"{lists[split]}: expected class/name.jpg, found {wrong[0]!r}")
    classes = tuple(sorted({name.split("/")[0] for name in lines["train"]}))
    labels = {name: label for label, name in enumerate(classes)}
    unknown = {name.split("/")[0] for names in lines.values() for name in names} - set(classes)
    if unknown:
        raise DataError(f"{lists['train']}: lacks class {min(unknown)!r}, which other lists have")
    splits = {
        split: [file_item(folder / "images" / name, labels[name.split("/")[0]]) for name in names]
        for split, names in lines.items()
    }
    return Source(classes, splits)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["banded", "blotchy", "chequered", "dotted", "zigzagged"]
    folder = files / FOLDER
    for split in ("train", "val", "test"):
        lines = []
        for label, number in miniature.examples(split, len(names)):
            lines.append(f"{names[label]}/{names[label]}_{number + 1:04d}.jpg")
            image = miniature.paint(motifs.textures, seed, "dtd", label, number)
            miniature.save_jpeg(folder / "images" / lines[-1], image)
        miniature.write_lines(folder / "labels" / f"{split}{PARTITION}.txt", sorted(lines))
