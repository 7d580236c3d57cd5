"""FGVC-Aircraft by variant: fgvc-aircraft-2013b/data/images_variant_{train,val,test}.txt."""

from pathlib import Path

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Item, Source
from clsp.data.listing import file_item, read_lines
from clsp.runtime.errors import DataError

FOLDER = "fgvc-aircraft-2013b"
SPLITS = ("train", "val", "test")

INFO = DatasetInfo(
    title="FGVC-Aircraft (variants)",
    license="non-commercial research purposes",
    source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    citation="S. Maji et al.: Fine-grained visual classification of aircraft. arXiv:1306.5151",
    metric="mean_per_class",
    archives=(
        Archive(
            url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
            "fgvc-aircraft-2013b.tar.gz",
            size=2753340328,
            sha256="e4e323d410e29f0370c81eabdcbb0e2b813acea1de22891b70b58ff41bfc9834",
            md5=None,
            folder="",
            prefix=f"{FOLDER}/",
            hosts=("robots.ox.ac.uk",),
            # torchvision gives no digest, tensorflow-datasets has no such entry, and the md5 on the
            # publisher's page is reported to belong to an older file.
            checked="size, sha256: several public projects agree; not confirmed by the publisher",
        ),
    ),
    note="Official splits. The copyright strip of 20 px at the bottom of each photo is kept, "
    "as in the transfer code that methods.md 4.1 follows.",
)


class Config(FetchedConfig):
    """No options of its own."""


def _read_split(data: Path, split: str, labels: dict[str, int]) -> list[Item]:
    path = data / f"images_variant_{split}.txt"
    items = []
    for line in read_lines(path):
        name, _, variant = line.partition(" ")
        if variant not in labels:
            raise DataError(f"{path}: variant {variant!r} is not in variants.txt")
        items.append(file_item(data / "images" / f"{name}.jpg", labels[variant]))
    return items


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    data = files / FOLDER / "data"
    classes = tuple(read_lines(data / "variants.txt"))
    labels = {name: label for label, name in enumerate(classes)}
    return Source(classes, {split: _read_split(data, split, labels) for split in SPLITS})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["707-320", "727-200", "737-200", "737-300", "DC-9-30"]
    data = files / FOLDER / "data"
    miniature.write_lines(data / "variants.txt", names)
    for split in SPLITS:
        lines = []
        for label, number in miniature.examples(split, len(names)):
            name = f"{1000000 + 1000 * number + label:07d}"
            lines.append(f"{name} {names[label]}")
            image = miniature.paint(motifs.aircraft, seed, "aircraft", label, number)
            miniature.save_jpeg(data / "images" / f"{name}.jpg", image)
        miniature.write_lines(data / f"images_variant_{split}.txt", lines)
        miniature.write_lines(data / f"images_{split}.txt", [line.split()[0] for line in lines])
