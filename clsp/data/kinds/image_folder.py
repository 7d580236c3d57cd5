"""A user's own folder: train/<class>/*, test/<class>/* and perhaps val/<class>/*."""

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar

from clsp.config.strict import Strict
from clsp.data.catalog import DatasetInfo, Item, Source
from clsp.data.pictures import open_picture
from clsp.data.tree import SPLITS, ignored, walk

INFO = DatasetInfo(
    title="Image folder",
    license="as its owner says",
    source="a folder on this machine",
    citation="none",
    metric="top1",
    note="Splits are the folders' own; images are turned upright as their EXIF data say.",
)

log = logging.getLogger(__name__)


class Config(Strict):
    """Where the folder lies; relative paths start where snakemake is called."""

    fetched: ClassVar[bool] = False
    root: str


def read(config: Config, files: Path | None) -> Source:
    """List the images of the folder; `files` is not used.

    Raises:
        DataError: If the folder is missing, empty or not laid out as expected.
    """
    root = Path(config.root).expanduser()
    found = walk(root)
    for name in ignored(root):
        log.warning("%s: not read; only train, val and test are", root / name)
    classes = tuple(found["train"])
    labels = {name: label for label, name in enumerate(classes)}
    absent = [name for name in classes if name not in found["test"]]
    if absent:
        log.warning("%s: has no images of %s", root / "test", ", ".join(absent))
    splits = {
        split: [
            Item(partial(open_picture, str(path), upright=True), labels[name])
            for name, paths in found.get(split, {}).items()
            for path in paths
        ]
        for split in SPLITS
    }
    return Source(classes, splits)
