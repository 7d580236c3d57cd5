"""ImageNet-100: 100 classes of a user's copy of ImageNet, train/<wnid>/* and val/<wnid>/*.

The classes are those of CMC and solo-learn (methods.md 6); labels follow the sorted wnids, as those
of torchvision's ImageFolder do. ImageNet's validation images are `test`: the labels of its own test
images are not public.
"""

import logging
from pathlib import Path
from typing import ClassVar, Literal

from clsp.config.catalog import dataset_info
from clsp.config.strict import Strict
from clsp.data.catalog import Item, Source
from clsp.data.imagenet import Found, find_images
from clsp.data.listing import file_item
from clsp.runtime.errors import DataError

KIND = "imagenet100"
SPLITS = {"train": "train", "test": "val"}  # ours -> the folder's name

log = logging.getLogger(__name__)


class Config(Strict):
    """Where ImageNet lies; a relative path starts where snakemake is called."""

    fetched: ClassVar[bool] = False
    root: str
    # checked: as many images as the catalogue says, or an error. as_found: a warning; for subsets.
    counts: Literal["checked", "as_found"] | None = None  # None: checked


def _differences(found: Found) -> list[str]:
    """How the numbers of images differ from the published ones; val has equally many per class."""
    expected = next(iter(dataset_info(KIND).counts.values()))
    totals = {split: sum(map(len, classes.values())) for split, classes in found.items()}
    wanted = {"train": expected.train, "val": expected.test}
    lines = [
        f"{split} has {totals[split]} images, expected {wanted[split]}"
        for split in wanted
        if totals[split] != wanted[split]
    ]
    each = expected.test // expected.classes
    odd = [f"{wnid} {len(paths)}" for wnid, paths in found["val"].items() if len(paths) != each]
    if odd:
        lines.append(f"val has other than {each} images of {', '.join(odd[:3])}")
    return lines


def read(config: Config, files: Path | None) -> Source:
    """List the images of the 100 classes; `files` is not used.

    Raises:
        DataError: If a folder is missing or empty, or counts are not the published ones.
    """
    root = Path(config.root).expanduser()
    classes = tuple(sorted(dataset_info(KIND).class_names))
    found = find_images(root, classes)
    differences = _differences(found)
    if differences and config.counts != "as_found":
        raise DataError(
            f"{root}: {'; '.join(differences)} (counts: as_found takes the folder as it is)"
        )
    for line in differences:
        log.warning("%s: %s", root, line)
    splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for split, folder in SPLITS.items():
        splits[split] = [
            file_item(path, label, root)
            for label, wnid in enumerate(classes)
            for path in found[folder][wnid]
        ]
    return Source(classes, splits)
