"""What is known about a dataset, and what reading one gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

NO_GROUP = -1
Picture = Image.Image | np.ndarray  # an RGB image, or uint8 (H, W, 3)


@dataclass(frozen=True)
class Archive:
    """One file that a dataset's publisher offers.

    Attributes:
        url: Where it is; https.
        size: Bytes; None where nobody has published them.
        sha256: Hex digest; None where none could be confirmed.
        md5: Hex digest that the publisher or torchvision gives, or None.
        folder: Where its members go, below the dataset's folder.
        prefix: Members below it are wanted, the others are left in the archive. Empty: all.
        hosts: Domains that the url may redirect to.
        checked: Where size and digests were taken from.
        nested: Members that are archives themselves, unpacked into `folder` in their turn.
    """

    url: str
    size: int | None
    sha256: str | None
    md5: str | None
    folder: str
    prefix: str
    hosts: tuple[str, ...]
    checked: str
    nested: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a dataset kind, printed on the card of every dataset prepared from it."""

    title: str
    license: str
    source: str
    citation: str
    metric: Literal["top1", "mean_per_class"]  # methods.md 4.1
    archives: tuple[Archive, ...] = ()
    note: str = ""  # how the splits are made, where that is a choice


class Item(NamedTuple):
    """One image, not yet read."""

    open: Callable[[], Picture]
    label: int
    group: int = NO_GROUP


@dataclass(frozen=True)
class Source:
    """A dataset as read from its files.

    Attributes:
        classes: Names; a label indexes them.
        splits: Images per split, "train", "val" and "test"; val is empty where nobody defines one.
        groups: Names, where the training images come in groups; an item's group indexes them.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    groups: tuple[str, ...] | None = None
