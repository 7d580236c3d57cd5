"""Flowers-102: flowers-102/setid.mat, imagelabels.mat and jpg/image_<number>.jpg.

The official assignment, as torchvision has it: train is trnid, val is valid, test is tstid, the
largest. Some papers swap trnid and tstid; we do not.
"""

from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.torchvision_reader import read_source

FOLDER = "flowers-102"
IDS = {"train": "trnid", "val": "valid", "test": "tstid"}


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the mat files below `files`.

    Raises:
        DataError: If one is missing or malformed.
    """
    from torchvision.datasets import Flowers102  # 3 s

    class Flowers(Flowers102):
        """Takes the mat files as they are: archives are checked where they arrive."""

        def _check_integrity(self) -> bool:
            return True

    def build(split: str) -> Any:
        dataset = Flowers(files, split, loader=str)
        dataset.classes = dataset.classes[: 1 + max(dataset._labels)]  # a miniature has fewer
        return dataset

    folder = files / FOLDER
    both = [folder / "setid.mat", folder / "imagelabels.mat"]
    return read_source(build, dict.fromkeys(IDS, both), folder)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archives' layout."""
    folder, classes = files / FOLDER, 5
    labels: list[int] = []
    ids: dict[str, list[int]] = {}
    for split, key in IDS.items():
        ids[key] = []
        for label, number in miniature.examples(split, classes):
            labels.append(label + 1)
            ids[key].append(len(labels))
            image = miniature.paint(motifs.flowers, seed, "flowers102", label, number)
            miniature.save_jpeg(folder / "jpg" / f"image_{len(labels):05d}.jpg", image)
    miniature.save_mat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    numbers = {key: np.array([values], np.uint16) for key, values in ids.items()}
    miniature.save_mat(folder / "setid.mat", numbers)
