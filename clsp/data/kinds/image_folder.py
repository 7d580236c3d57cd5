"""A user's own folder: train/<class>/*, test/<class>/* and perhaps val/<class>/*."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from clsp.config.strict import Strict
from clsp.data.catalog import NO_GROUP, Item, Source
from clsp.data.groups import groups_file, read_groups
from clsp.data.pictures import open_picture
from clsp.data.tree import SPLITS, ignored, walk

log = logging.getLogger(__name__)


class Config(Strict):
    """Where the folder lies; relative paths start where snakemake is called."""

    fetched: ClassVar[bool] = False
    root: str
    groups: str | None = None  # a CSV with the columns `path` and group_column; relative to root
    group_column: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if (self.groups is None) != (self.group_column is None):
            given, absent = sorted(
                ("groups", "group_column"), key=lambda k: getattr(self, k) is None
            )
            raise ValueError(f"{given} and {absent} belong together, found {given} alone")
        if self.group_column == "path":
            raise ValueError('group_column must be another column than "path"')
        return self


def _name(path: Path, root: Path) -> str:
    """The path below `root`; bytes that are no UTF-8 become escapes, as names are written down."""
    encoded = os.fsencode(path.relative_to(root).as_posix())
    return encoded.decode("utf-8", errors="backslashreplace")


def _read_groups(
    config: Config, root: Path, train: dict[str, list[Path]]
) -> tuple[dict[Path, int], tuple[str, ...] | None]:
    """Group number of each training image that has one, and the names of the groups."""
    if config.groups is None:
        return {}, None
    images = {path.relative_to(root).as_posix(): path for paths in train.values() for path in paths}
    named = read_groups(groups_file(root, config.groups), config.group_column, list(images))
    groups = tuple(sorted(set(named.values())))
    numbers = {name: number for number, name in enumerate(groups)}
    return {images[image]: numbers[group] for image, group in named.items()}, groups


def read(config: Config, files: Path | None) -> Source:
    """List the images of the folder; `files` is not used.

    Raises:
        DataError: If the folder is missing, empty or not laid out as expected, or the groups do not
            fit its training images.
    """
    root = Path(config.root).expanduser()
    found = walk(root)
    members, groups = _read_groups(config, root, found["train"])
    for name in ignored(root):
        log.warning("%s: not read; only train, val and test are", root / name)
    classes = tuple(found["train"])
    labels = {name: label for label, name in enumerate(classes)}
    absent = [name for name in classes if name not in found["test"]]
    if absent:
        log.warning("%s: has no images of %s", root / "test", ", ".join(absent))
    splits = {
        split: [
            Item(
                partial(open_picture, str(path), upright=True),
                labels[name],
                _name(path, root),
                path,
                members.get(path, NO_GROUP) if split == "train" else NO_GROUP,
            )
            for name, paths in found.get(split, {}).items()
            for path in paths
        ]
        for split in SPLITS
    }
    return Source(classes, splits, groups=groups)
