"""card.json: what a prepared dataset is, where it comes from, and what identifies it."""

from typing import Any

import numpy as np

from clsp.config.catalog import dataset_info
from clsp.config.schema import DatasetSpec
from clsp.data.catalog import NO_GROUP, UNLABELLED, Item, Source
from clsp.data.items import lines_digest
from clsp.data.prepared import ARRAYS, ENCODED, SPLITS

Chosen = dict[str, list[Item]]  # the images that a dataset keeps, per split


def labels_array(chosen: Chosen, source: Source) -> np.ndarray:
    """Labels of all rows: int64 (N,), or of a multi-label dataset uint8 (N, classes) of 0 and 1."""
    items = [item for split in SPLITS for item in chosen[split]]
    if not source.multilabel:
        return np.array([item.label for item in items], dtype=np.int64)
    labels = np.zeros((len(items), len(source.classes)), dtype=np.uint8)
    for row, item in enumerate(items):
        labels[row, list(item.label)] = 1
    return labels


def _count(labels: np.ndarray, classes: int) -> list[int]:
    """Images of each class; one without a label is in none."""
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64).tolist()
    return np.bincount(labels[labels != UNLABELLED], minlength=classes).tolist()


def _describe_splits(chosen: Chosen, labels: np.ndarray, classes: int) -> dict[str, Any]:
    splits, counts, start = {}, {}, 0
    for split in SPLITS:
        stop = start + len(chosen[split])
        splits[split] = [start, stop]
        counts[split] = _count(labels[start:stop], classes)
        start = stop
    train = slice(*splits["train"])
    unlabelled = 0 if labels.ndim == 2 else int((labels[train] == UNLABELLED).sum())
    return {"splits": splits, "counts": counts, "unlabelled": unlabelled}


def _describe_groups(source: Source, items: list[Item]) -> dict[str, Any]:
    """Group numbers of the training images, in the order of their rows; nothing without groups."""
    if source.groups is None:
        return {}
    numbers = [item.group for item in items]
    return {"groups": numbers, "group_count": len({n for n in numbers if n != NO_GROUP})}


def _describe_origin(spec: DatasetSpec) -> dict[str, Any]:
    known = dataset_info(spec.kind)
    miniature = spec.options.get("source") == "miniature"
    drawn = {
        "title": f"{known.title} (miniature)",
        "license": "Apache-2.0",
        "source": f"drawn by this suite from seed {spec.options.get('seed')}",
        "citation": "none: a stand-in in the layout of the real dataset",
    }
    real = {name: getattr(known, name) for name in drawn}
    shown = drawn if miniature else real
    return {**shown, "miniature": miniature, "metric": known.metric, "note": known.note}


def describe(
    spec: DatasetSpec, source: Source, chosen: Chosen, labels: np.ndarray
) -> dict[str, Any]:
    """What is known of a dataset before its images are decoded.

    Args:
        spec: Of the dataset.
        source: Its classes, and how its splits were drawn.
        chosen: The images that it keeps.
        labels: From `labels_array`.
    """
    names = {split: [item.name for item in items] for split, items in chosen.items()}
    return {
        "schema_version": 1,
        "kind": spec.kind,
        **_describe_origin(spec),
        "drawing": source.drawing,
        "storage": ENCODED if spec.encoded else ARRAYS,
        "size": spec.size,
        "resize": spec.resize,
        "limit": spec.limit,
        "multilabel": source.multilabel,
        "classes": list(source.classes),
        **_describe_splits(chosen, labels, len(source.classes)),
        **_describe_groups(source, chosen["train"]),
        "items_sha256": {split: lines_digest(names[split]) for split in SPLITS},
    }
