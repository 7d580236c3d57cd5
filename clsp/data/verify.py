"""Compares the real files of a dataset with the catalogue, through the kind's own reader.

Counts, class names and images of every published protocol. Run by users after fetching, because
this suite was written without the real files: what the tests check on miniatures is checked here
on the originals.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.catalog import Counts, DatasetInfo, dataset_info
from clsp.config.schema import KINDS
from clsp.config.strict import parse
from clsp.data.catalog import UNLABELLED, Item, Source
from clsp.data.checked import LOCAL, check_file, downloads
from clsp.data.download import Obtained
from clsp.data.fetch import unpack_all
from clsp.data.survey import installed_copy, raw_folders
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load, settings_class

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """One comparison."""

    kind: str
    protocol: str
    what: str
    expected: str
    found: str
    ok: bool

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def _row(kind: str, protocol: str, what: str, expected: Any, found: Any) -> Row:
    return Row(kind, protocol, what, str(expected), str(found), expected == found)


def _names(expected: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, str]:
    """Class names as shown: how many agree, and the first that does not."""
    for label, (wanted, name) in enumerate(zip(expected, found, strict=False)):
        if wanted != name:
            return f"{wanted!r} as class {label}", f"{name!r}"
    return f"{len(expected)} as published", f"{len(found)} as published"


def compare(kind: str, protocol: str, counts: Counts, info: DatasetInfo, read: Source) -> list[Row]:
    """What a reader found, against the catalogue."""
    rows = [_row(kind, protocol, "classes", counts.classes, len(read.classes))]
    for split in SPLITS:
        rows.append(_row(kind, protocol, split, getattr(counts, split), len(read.splits[split])))
    unlabelled = sum(item.label == UNLABELLED for item in read.splits["train"])
    if counts.unlabelled or unlabelled:
        rows.append(_row(kind, protocol, "unlabelled", counts.unlabelled or 0, unlabelled))
    if len(info.class_names) == counts.classes:  # other levels of labels have names of their own
        rows.append(_row(kind, protocol, "names", *_names(info.class_names, read.classes)))
    if info.multilabel or read.multilabel:
        rows.append(_row(kind, protocol, "multi-label", info.multilabel, read.multilabel))
    return rows


def _fault(item: Item) -> str:
    """What is wrong with an image; empty if nothing is."""
    try:
        shape = np.asarray(item.open()).shape
    except DataError as error:
        return str(error)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        return f"{item.name}: shape {shape}, expected height, width and 3 channels"
    return ""


def _sample(items: list[Item], most: int | None) -> list[Item]:
    """Evenly spaced items, the first and the last among them; None: all."""
    if most is None or len(items) <= most:
        return items
    return [items[row] for row in np.linspace(0, len(items) - 1, most).astype(int)]


def open_images(kind: str, protocol: str, read: Source, most: int | None, seen: set[str]) -> Row:
    """Open images of every split; those of an earlier protocol are not opened again."""
    chosen = [i for split in SPLITS for i in _sample(read.splits[split], most)]
    chosen = [item for item in chosen if item.name not in seen]
    seen.update(item.name for item in chosen)
    faults = []
    with Progress(f"open {kind} ({protocol})", len(chosen), "image") as progress:
        for item in chosen:
            if fault := _fault(item):
                faults.append(fault)
            progress.step()
    found = f"{len(chosen) - len(faults)} of {len(chosen)} open"
    shown = found + (f"; {faults[0]}" if faults else "")
    return Row(kind, protocol, "images", f"{len(chosen)} of {len(chosen)} open", shown, not faults)


def _local(info: DatasetInfo) -> list[tuple[Any, Obtained]]:
    """The archives that lie in the downloads folder, checked; never a download.

    Raises:
        DataError: If one is absent, with all that are, or is not the published one.
    """
    folder = downloads()
    absent = [a.name for a in info.archives if not (folder / a.name).is_file()]
    if absent:
        raise DataError(f"{folder}: lacks {', '.join(absent)}; run python -m clsp data fetch first")
    return [
        (a, Obtained(folder / a.name, LOCAL, check_file(folder / a.name, a))) for a in info.archives
    ]


@contextlib.contextmanager
def real_files(kind: str, info: DatasetInfo, homes: list[Path]) -> Iterator[Path | None]:
    """The unpacked real files of a kind: a fetched folder, else the archives, unpacked for a while.

    Raises:
        DataError: If they are not here, or are not the published ones.
    """
    if not settings_class(KINDS, kind).fetched:
        if info.archives and installed_copy(kind) is None:
            _local(info)
        yield None
        return
    for folder in raw_folders(kind, homes):
        yield folder
        return
    archives = _local(info)
    room_in = downloads() if os.access(downloads(), os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(dir=room_in, prefix=f".verify-{kind}-") as room:
        unpack_all(archives, Path(room) / "files")
        yield Path(room) / "files"


def _settings(kind: str, counts: Counts, given: dict[str, Any]) -> Any:
    model = settings_class(KINDS, kind)
    root = model.model_fields.get("root")
    if root is not None and root.is_required() and "root" not in given:
        raise ConfigError(f"data verify {kind}: --root is missing, the folder of your own copy")
    source = {"source": "download"} if model.fetched else {}
    return parse(model, {**source, **counts.options, **given}, f"kind {kind}")


def _failed(kind: str, protocol: str, error: ClspError) -> Row:
    return Row(kind, protocol, "files", "readable", str(error), False)


def verify(kind: str, homes: list[Path], most: int | None, given: dict[str, Any]) -> list[Row]:
    """Compare the real files of one kind with the catalogue, protocol by protocol.

    Args:
        kind: Which.
        homes: Where stages keep data: a fetched folder there saves unpacking.
        most: Images to open per split and protocol; None: all.
        given: Options of the kind that only the user knows, such as `root`.

    Raises:
        ConfigError: If the catalogue has no counts of the kind, or an option is wrong.
    """
    info = dataset_info(kind)
    if not info.counts:
        raise ConfigError(f'kind "{kind}" has no published counts to compare with')
    settings = {name: _settings(kind, counts, given) for name, counts in info.counts.items()}
    rows: list[Row] = []
    seen: set[str] = set()
    try:
        with real_files(kind, info, homes) as files:
            for protocol, counts in info.counts.items():
                try:
                    read = load(KINDS, kind, "kind").read(settings[protocol], files)
                    rows += compare(kind, protocol, counts, info, read)
                    rows.append(open_images(kind, protocol, read, most, seen))
                except DataError as error:
                    rows.append(_failed(kind, protocol, error))
    except DataError as error:
        rows.append(_failed(kind, "all", error))
    return rows
