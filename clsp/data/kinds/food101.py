"""Food-101: food-101/meta/{train,test}.json and food-101/images/<class>/<number>.jpg."""

from pathlib import Path
from typing import Any

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.torchvision_reader import read_source
from clsp.runtime.canonical import canonical_json

FOLDER = "food-101"


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the lists below `files`.

    Raises:
        DataError: If a list is missing or malformed.
    """
    from torchvision.datasets import Food101  # 3 s

    def build(split: str) -> Any:
        return Food101(files, split, loader=str)

    folder = files / FOLDER
    lists = {split: [folder / "meta" / f"{split}.json"] for split in ("train", "test")}
    return read_source(build, lists, folder)


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
