"""Stanford Cars: stanford_cars/devkit, cars_test_annos_withlabels.mat, cars_train and cars_test.

The publisher's pages are gone since 2023: the user brings the files (catalog.yaml says which).
"""

from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.torchvision_reader import read_source

FOLDER = "stanford_cars"
LABELS = {  # the devkit's own list of test images has no classes
    "train": "devkit/cars_train_annos.mat",
    "test": "cars_test_annos_withlabels.mat",
}
NAMES = "devkit/cars_meta.mat"
FIELDS = [*((f"bbox_{name}", "u2") for name in ("x1", "y1", "x2", "y2")), ("class", "u1")]


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the mat files below `files`.

    Raises:
        DataError: If one is missing or malformed.
    """
    from torchvision.datasets import StanfordCars  # 3 s

    def build(split: str) -> Any:
        return StanfordCars(files, split, loader=str)

    folder = files / FOLDER
    lists = {split: [folder / name, folder / NAMES] for split, name in LABELS.items()}
    return read_source(build, lists, folder)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    names = [
        "AM General Hummer SUV 2000",
        "Acura RL Sedan 2012",
        "Acura TL Sedan 2012",
        "Acura TL Type-S 2008",
        "Acura TSX Sedan 2012",
    ]
    folder = files / FOLDER
    (folder / "devkit").mkdir(parents=True, exist_ok=True)
    for split, listed in LABELS.items():
        rows = []
        for row, (label, number) in enumerate(miniature.examples(split, len(names)), start=1):
            image = miniature.paint(motifs.cars, seed, "cars", label, number)
            miniature.save_jpeg(folder / f"cars_{split}" / f"{row:05d}.jpg", image)
            height, width, _ = image.shape
            rows.append((1, 1, width, height, label + 1, f"{row:05d}.jpg"))
        annotations = np.array([rows], dtype=[*FIELDS, ("fname", "O")])
        miniature.save_mat(folder / listed, {"annotations": annotations})
    miniature.save_mat(folder / NAMES, {"class_names": np.array([names], dtype=object)})
