"""Stage prepare-dataset: a dataset's files -> what every later stage maps into memory.

Either all pixels at one size, or the image files themselves (storage: encoded). Every image is
decoded once in any case, so that a broken one is named here and not in the middle of a training.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from clsp.config.schema import KINDS, DatasetSpec, FetchSpec
from clsp.data.card import Chosen, describe, labels_array
from clsp.data.catalog import UNLABELLED, Item, Source
from clsp.data.encoded import EncodedWriter
from clsp.data.fingerprint import read_fingerprint
from clsp.data.items import ItemsWriter, lines_digest
from clsp.data.prepared import SPLITS
from clsp.data.ready import Ready, ready_blocks
from clsp.data.select import evenly, strata
from clsp.data.statistics import ArrayDigest, ChannelSums
from clsp.runtime.canonical import canonical_json, sha256_array
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.files import write_atomic, writing
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load
from clsp.runtime.stage import Inputs, Outcome, Output

CHANNELS = ("red", "green", "blue")


def _raw_folder(spec: DatasetSpec, raw: Inputs) -> Path | None:
    """Folder of the fetched files, or None for a kind that needs none."""
    if not spec.settings().fetched:
        if raw:
            raise ConfigError(f'--raw: kind "{spec.kind}" reads no fetched files')
        return None
    if len(raw) != 1 or raw[0].stage != "fetch-dataset":
        raise ConfigError(f'--raw: kind "{spec.kind}" needs one artefact of fetch-dataset')
    if raw[0].spec != FetchSpec.behind(spec).canonical():
        found = canonical_json(raw[0].spec)
        raise DataError(f"{raw[0].manifest}: belongs to another dataset: {found}")
    return raw[0].path("files")


def _shown(items: list[Item]) -> set[int]:
    """Every label of some images."""
    labels = (item.label if isinstance(item.label, tuple) else (item.label,) for item in items)
    return {label for each in labels for label in each}


def select(source: Source, limit: int | None) -> Chosen:
    """The images to keep, per split, and a check that they make a dataset.

    Raises:
        ConfigError: If `limit` leaves a class without images.
        DataError: If train or test is empty, val or test holds images without a label, or a class
            that train lacks while it has others.
    """
    chosen = {}
    for split in SPLITS:
        items = source.splits[split]
        labels = strata(items)
        if limit is not None and limit < len(np.unique(labels)):
            classes = len(np.unique(labels))
            raise ConfigError(f"limit: {limit} images cannot show the {classes} classes of {split}")
        chosen[split] = [items[row] for row in evenly(labels, limit)]
        if split != "val" and not items:
            raise DataError(f"the dataset has no images in {split}")
    trained = _shown(chosen["train"]) - {UNLABELLED}
    for split in ("val", "test"):
        if UNLABELLED in _shown(chosen[split]):
            raise DataError(f"{split} has images without a label; only train may have some")
        unknown = _shown(chosen[split]) - trained
        if unknown and trained:  # without any label there are images to learn from all the same
            name = source.classes[min(unknown)]
            raise DataError(f"class {name!r} is in {split} but has no training images")
    return chosen


def _start_images(
    spec: DatasetSpec, path: Path, total: int, stack: ExitStack
) -> Callable[[list[Ready]], None]:
    """Create the file of images; returns what appends a block to it.

    Pixels are written front to back, not through a memory map, so that a full disk is an error
    message and not a bus error.

    Raises:
        DataError: If it cannot be written; what is returned, and the end of `stack`, raise it too.
    """
    if spec.encoded:
        writer = stack.enter_context(EncodedWriter(path))

        def append(block: list[Ready]) -> None:
            for image in block:
                writer.add(image.content, image.height, image.width)

        return append
    header = {"descr": "|u1", "fortran_order": False, "shape": (total, spec.size, spec.size, 3)}
    with writing(path):
        stream = path.open("wb")
        np.lib.format.write_array_header_1_0(stream, header)

    def write(block: list[Ready]) -> None:
        with writing(path):
            stream.writelines(image.pixels.tobytes() for image in block)

    def close() -> None:
        with writing(path):
            stream.close()

    stack.callback(close)
    return write


def write_images(spec: DatasetSpec, chosen: Chosen, images: Path, items: Path) -> dict[str, Any]:
    """Stream all splits into the file of images and the list of items.

    Returns:
        What the card says of the pixels: mean and std over train as networks see it, images_sha256
        over all rows as networks see them, source_sha256 over train at its own resolution.
    """
    total, sources = sum(len(each) for each in chosen.values()), []
    sums, digest = ChannelSums(), ArrayDigest((total, spec.size, spec.size, 3))
    with ExitStack() as stack:
        progress = stack.enter_context(Progress("prepare images", total, "image"))
        listed = stack.enter_context(closing(ItemsWriter(items)))
        append = _start_images(spec, images, total, stack)
        for split in SPLITS:
            remaining = iter(chosen[split])
            for block in ready_blocks(chosen[split], spec):
                append(block)
                pixels = np.stack([image.pixels for image in block])
                digest.add(pixels)
                if split == "train":
                    sums.add(pixels)
                    sources += [image.source for image in block]
                for image, item in zip(block, remaining, strict=False):
                    listed.add(split, item, image.source, image.stored)
                progress.step(len(block))
    return {
        "mean": sums.mean(),
        "std": sums.std(),
        "images_sha256": digest.hexdigest(),
        "source_sha256": lines_digest(sources),
    }


def prepare_dataset(
    spec: DatasetSpec, raw: Inputs, images: Output, labels: Output, items: Output, card: Output
) -> Outcome:
    """Read a dataset and write what later stages read; rows are train, val, test.

    Args:
        spec: Of the dataset.
        raw: Its fetched files, where its kind has some.
        images: images.npy, uint8 (N, size, size, 3); with storage "encoded" images.arrow.
        labels: labels.npy, int64 (N,), or of a multi-label dataset uint8 (N, classes).
        items: items.csv, see clsp.data.items.
        card: card.json, see clsp.data.card.

    Raises:
        ConfigError: If the limit is too small for the classes, or --raw does not fit the kind.
        DataError: If files are missing or unreadable or do not make a dataset, or the disk is full.
    """
    kind = load(KINDS, spec.kind, "kind")
    source = kind.read(spec.settings(), _raw_folder(spec, raw))
    chosen = select(source, spec.limit)
    values = labels_array(chosen, source)
    pixels = write_images(spec, chosen, images, items)
    flat = [channel for channel, std in zip(CHANNELS, pixels["std"], strict=True) if std == 0]
    if flat and spec.normalisation is None:
        raise DataError(
            f"the training images are all alike in {', '.join(flat)}: standard deviation 0; "
            "give the dataset a normalisation of its own"
        )
    with writing(labels):
        np.save(labels, values, allow_pickle=False)
    described = {
        **describe(spec, source, chosen, values),
        **pixels,
        "labels_sha256": sha256_array(values),
        "fingerprint": read_fingerprint(spec),
    }
    write_atomic(card, canonical_json(described) + "\n")
    facts = {key: described[key] for key in ("images_sha256", "labels_sha256", "miniature")}
    return Outcome(counters={"images": len(values), "classes": len(source.classes)}, facts=facts)
