"""Food-101: food-101/meta/{train,test}.json and food-101/images/<class>/<number>.jpg."""

from pathlib import Path
from typing import Any

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Source
from clsp.data.listing import file_item
from clsp.runtime.canonical import canonical_json, read_json
from clsp.runtime.errors import DataError

FOLDER = "food-101"

INFO = DatasetInfo(
    title="Food-101",
    license="fair use; the images belong to Foodspotting",
    source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    citation="L. Bossard, M. Guillaumin, L. Van Gool: Food-101. ECCV, 2014",
    metric="top1",
    archives=(
        Archive(
            # The publisher's page links http; https is this suite's demand. The digest decides.
            url="https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            size=4996278331,
            sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            md5="85eeb15f3717b99a5da872d97d918f87",
            folder="",
            prefix=f"{FOLDER}/",
            hosts=("ee.ethz.ch",),
            checked="size, sha256: tensorflow-datasets; md5: torchvision",
        ),
    ),
    note="Training labels are noisy by design; no official val.",
)


class Config(FetchedConfig):
    """No options of its own."""


def _listed(path: Path) -> dict[str, list[str]]:
    content: Any = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected an object of class -> image names")
    return content


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    folder = files / FOLDER
    lists = {split: _listed(folder / "meta" / f"{split}.json") for split in ("train", "test")}
    classes = tuple(sorted(lists["train"]))
    labels = {name: label for label, name in enumerate(classes)}
    unknown = set(lists["test"]) - set(classes)
    if unknown:
        raise DataError(f"{folder / 'meta' / 'train.json'}: lacks class {min(unknown)!r}")
    splits = {
        split: [
            file_item(folder / "images" / f"{name}.jpg", labels[class_name])
            for class_name, names in listed.items()
            for name in names
        ]
        for split, listed in lists.items()
    }
    return Source(classes, {**splits, "val": []})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "beef_tartare"]
    meta = files / FOLDER / "meta"
    for split in ("train", "test"):
        listed: dict[str, list[str]] = {name: [] for name in names}
        for label, number in miniature.examples(split, len(names)):
            name = f"{names[label]}/{100000 + 1000 * label + number}"
            listed[names[label]].append(name)
            image = miniature.paint(motifs.dishes, seed, "food101", label, number)
            miniature.save_jpeg(files / FOLDER / "images" / f"{name}.jpg", image)
        miniature.write_lines(meta / f"{split}.json", [canonical_json(listed)])
        miniature.write_lines(meta / f"{split}.txt", [n for part in listed.values() for n in part])
    miniature.write_lines(meta / "classes.txt", names)
    miniature.write_lines(meta / "labels.txt", [n.replace("_", " ").capitalize() for n in names])
