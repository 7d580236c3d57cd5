"""Reads a dataset through torchvision's class for it: which files, which labels; no pixels.

Used where the class unpickles nothing and its splits are the protocol's (methods.md 4.1). Images
are decoded by this suite, as for every other kind. Nothing is downloaded here.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from clsp.data.catalog import Item, Source
from clsp.data.listing import file_item, refuse_repeats
from clsp.runtime.errors import DataError


def _pairs(build: Callable[[], Any], lists: Iterable[Path]) -> tuple[list[tuple[Path, int]], list]:
    """Path and label of each image, and the names of the classes.

    Raises:
        DataError: If a list is missing, or torchvision cannot make sense of it.
    """
    for path in lists:
        if not path.is_file():
            raise DataError(f"{path}: cannot be read (no such file)")
    try:
        dataset = build()
        pairs = [dataset[row] for row in range(len(dataset))]
        return [(Path(path), int(label)) for path, label in pairs], list(dataset.classes)
    except Exception as error:  # what a malformed list raises depends on the class
        named = ", ".join(map(str, lists))
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{named}: not as torchvision expects ({reason})") from error


def _check_labels(pairs: list[tuple[Path, int]], classes: list[str], named: str) -> None:
    """Every class must occur, and no other.

    Raises:
        DataError: Naming the list and the class.
    """
    if not pairs:
        raise DataError(f"{named}: lists no images")
    found = {label for _, label in pairs}
    outside = found - set(range(len(classes)))
    if outside:
        raise DataError(
            f"{named}: class number {min(outside) + 1}, expected 1 to {len(classes)}, the number "
            "of class names"
        )
    absent = sorted(set(range(len(classes))) - found)
    if absent:
        raise DataError(f"{named}: lists no image of class {classes[absent[0]]!r}")


def read_source(
    build: Callable[[str], Any], lists: Mapping[str, list[Path]], folder: Path
) -> Source:
    """Read all splits of a dataset.

    Args:
        build: Makes torchvision's dataset of a split. Its items must be (path, label): `loader=str`
            keeps it from opening images.
        lists: By split, the files from which torchvision reads it.
        folder: The dataset's own; images are named below it.

    Raises:
        DataError: If a list is missing or malformed, an image is listed twice, or splits have
            different classes.
    """
    splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    known: list[str] | None = None
    for split, paths in lists.items():
        pairs, classes = _pairs(partial(build, split), paths)
        named = ", ".join(map(str, paths))
        known = classes if known is None else known
        if classes != known:
            more, fewer = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
            raise DataError(
                f"{named}: other classes than in {next(iter(lists))}: has {more[:3]} besides, "
                f"lacks {fewer[:3]}"
            )
        _check_labels(pairs, classes, named)
        splits[split] = [file_item(path, label, folder) for path, label in pairs]
    refuse_repeats(splits, folder)
    return Source(tuple(known or ()), splits)
