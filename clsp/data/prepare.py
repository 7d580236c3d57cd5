"""Stage prepare-dataset: a dataset's files -> uint8 arrays that every later stage maps into memory.

Images are decoded by a few threads (PIL releases the interpreter lock) and written in order, block
by block, so that memory stays bounded and the result never depends on the threads.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.schema import KINDS, DatasetSpec
from clsp.data.catalog import NO_GROUP, Item, Source
from clsp.data.fingerprint import read_fingerprint
from clsp.data.pictures import fit
from clsp.data.prepared import SPLITS
from clsp.data.select import evenly
from clsp.runtime.canonical import canonical_json, sha256_array
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load
from clsp.runtime.stage import Inputs, Outcome, Output

BLOCK = 256  # images decoded ahead of the writer
THREADS = 8  # at most
CHANNELS = ("red", "green", "blue")


def _raw_folder(spec: DatasetSpec, raw: Inputs) -> Path | None:
    """Folder of the fetched files, or None for a kind that needs none."""
    if not spec.settings().fetched:
        if raw:
            raise ConfigError(f'--raw: kind "{spec.kind}" reads no fetched files')
        return None
    if len(raw) != 1 or raw[0].stage != "fetch-dataset":
        raise ConfigError(f'--raw: kind "{spec.kind}" needs one artefact of fetch-dataset')
    found = {key: raw[0].spec[key] for key in ("kind", "options")}
    if found != {"kind": spec.kind, "options": spec.options}:
        raise DataError(f"{raw[0].manifest}: belongs to another dataset: {canonical_json(found)}")
    return raw[0].path("files")


def _select(source: Source, limit: int | None) -> dict[str, list[Item]]:
    """The images to keep, per split, and a check that they make a dataset.

    Raises:
        ConfigError: If `limit` leaves a class without images.
        DataError: If train or test is empty, or holds a class that train lacks.
    """
    chosen = {}
    for split in SPLITS:
        items = source.splits[split]
        labels = np.array([item.label for item in items], dtype=np.int64)
        if limit is not None and limit < len(np.unique(labels)):
            classes = len(np.unique(labels))
            raise ConfigError(f"limit: {limit} images cannot show the {classes} classes of {split}")
        chosen[split] = [items[row] for row in evenly(labels, limit)]
        if split != "val" and not items:
            raise DataError(f"the dataset has no images in {split}")
    trained = {item.label for item in chosen["train"]}
    for split in ("val", "test"):
        unknown = {item.label for item in chosen[split]} - trained
        if unknown:
            name = source.classes[min(unknown)]
            raise DataError(f"class {name!r} is in {split} but has no training images")
    return chosen


def _decode(size: int, item: Item) -> np.ndarray:
    return fit(item.open(), size)


def decoded(items: list[Item], size: int) -> Iterator[np.ndarray]:
    """Decode images in order, a block at a time.

    Args:
        items: What to decode.
        size: Side in pixels.

    Yields:
        uint8 (up to BLOCK, size, size, 3).

    Raises:
        DataError: Naming the file that cannot be read.
    """
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), BLOCK):
            block = pool.map(partial(_decode, size), items[start : start + BLOCK])
            yield np.stack(list(block))


class ChannelSums:
    """Exact per-channel sums of uint8 images, so that no order of adding changes the statistics."""

    def __init__(self) -> None:
        """Start with no images."""
        self.pixels = 0
        self.sums = np.zeros(3, dtype=np.int64)
        self.squares = np.zeros(3, dtype=np.int64)

    def add(self, images: np.ndarray) -> None:
        """Add images, uint8 (N, H, W, 3)."""
        counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)]
        levels = np.arange(256, dtype=np.int64)
        self.pixels += images[..., 0].size
        self.sums += [int((count * levels).sum()) for count in counts]
        self.squares += [int((count * levels**2).sum()) for count in counts]

    def mean(self) -> list[float]:
        """Mean per channel of the images scaled to [0, 1]."""
        return [float(total / self.pixels / 255) for total in self.sums]

    def std(self) -> list[float]:
        """Population standard deviation per channel of the images scaled to [0, 1]."""
        pairs = zip(self.sums.tolist(), self.squares.tolist(), strict=True)
        spread = [square * self.pixels - total**2 for total, square in pairs]  # Python: no overflow
        return [float(value**0.5 / self.pixels / 255) for value in spread]


def _write_images(chosen: dict[str, list[Item]], size: int, path: Path) -> ChannelSums:
    """Stream all splits into one npy file; returns the sums over train.

    Written front to back, not through a memory map, so that a full disk is an error message and
    not a bus error.
    """
    total = sum(len(items) for items in chosen.values())
    header = {"descr": "|u1", "fortran_order": False, "shape": (total, size, size, 3)}
    sums = ChannelSums()
    with open(path, "wb") as stream, Progress("prepare images", total, "image") as progress:
        np.lib.format.write_array_header_1_0(stream, header)
        for split in SPLITS:
            for block in decoded(chosen[split], size):
                if split == "train":
                    sums.add(block)
                stream.write(block.tobytes())
                progress.step(len(block))
    return sums


def _describe_splits(chosen: dict[str, list[Item]], classes: int) -> dict[str, Any]:
    splits, counts, start = {}, {}, 0
    for split in SPLITS:
        labels = [item.label for item in chosen[split]]
        splits[split] = [start, start + len(labels)]
        counts[split] = np.bincount(labels, minlength=classes).tolist() if labels else [0] * classes
        start += len(labels)
    return {"splits": splits, "counts": counts}


def _describe_groups(source: Source, items: list[Item]) -> dict[str, Any]:
    """Group numbers of the training images, in the order of their rows; nothing without groups."""
    if source.groups is None:
        return {}
    numbers = [item.group for item in items]
    return {"groups": numbers, "group_count": len({n for n in numbers if n != NO_GROUP})}


def _describe_origin(spec: DatasetSpec, known: Any) -> dict[str, Any]:
    miniature = spec.options.get("source") == "miniature"
    drawn = {
        "title": f"{known.title} (miniature)",
        "license": "Apache-2.0",
        "source": f"drawn by this suite from seed {spec.options.get('seed')}",
        "citation": "none: a stand-in in the layout of the real dataset",
    }
    real = {name: getattr(known, name) for name in drawn}
    return {**(drawn if miniature else real), "miniature": miniature}


def prepare_dataset(
    spec: DatasetSpec, raw: Inputs, images: Output, labels: Output, card: Output
) -> Outcome:
    """Read a dataset and write images.npy, labels.npy and card.json; rows are train, val, test.

    Raises:
        ConfigError: If the limit is too small for the classes, or --raw does not fit the kind.
        DataError: If files are missing or unreadable, or do not make a dataset.
    """
    kind = load(KINDS, spec.kind, "kind")
    source = kind.read(spec.settings(), _raw_folder(spec, raw))
    chosen = _select(source, spec.limit)
    sums = _write_images(chosen, spec.size, images)
    flat = [channel for channel, std in zip(CHANNELS, sums.std(), strict=True) if std == 0]
    if flat and spec.normalisation is None:
        raise DataError(
            f"the training images are all alike in {', '.join(flat)}: standard deviation 0; "
            "give the dataset a normalisation of its own"
        )
    values = np.array([item.label for split in SPLITS for item in chosen[split]], dtype=np.int64)
    np.save(labels, values, allow_pickle=False)
    described = {
        "schema_version": 1,
        "kind": spec.kind,
        **_describe_origin(spec, kind.INFO),
        "metric": kind.INFO.metric,
        "note": kind.INFO.note,
        "size": spec.size,
        "limit": spec.limit,
        "classes": list(source.classes),
        **_describe_splits(chosen, len(source.classes)),
        **_describe_groups(source, chosen["train"]),
        "mean": sums.mean(),
        "std": sums.std(),
        "images_sha256": sha256_array(np.load(images, mmap_mode="r", allow_pickle=False)),
        "labels_sha256": sha256_array(values),
        "fingerprint": read_fingerprint(spec),
    }
    write_atomic(card, canonical_json(described) + "\n")
    facts = {key: described[key] for key in ("images_sha256", "labels_sha256", "miniature")}
    return Outcome(counters={"images": len(values), "classes": len(source.classes)}, facts=facts)
