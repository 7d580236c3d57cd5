"""The labelled splits a probe is allowed to use, checked before anything is computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clsp.data.prepared import Images, Prepared, open_prepared, window
from clsp.evaluate.metrics import METRICS, RANKED
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact


class Chosen:
    """Some rows of a dataset's images, read when they are asked for.

    Args:
        images: uint8 (N, H, W, 3), mapped or encoded.
        rows: int64 (n,), which of them.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Pixels of some of them, uint8 (n, H, W, 3)."""
        return self.images[self.rows[key]]


@dataclass(frozen=True)
class Part:
    """The labelled images of one split.

    Attributes:
        images: uint8 (N, H, W, 3), neither read nor decoded yet.
        labels: Class of each, int64 (N,), or uint8 (N, classes), 1 for every class that is shown.
        rows: Where each is in the dataset's arrays, int64 (N,), ascending.
    """

    images: Images | Chosen
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """A dataset as a classification task.

    Attributes:
        name: Of the dataset.
        classes: How many.
        metric: "top1", "mean_per_class" or, where images show several classes, "map11".
        train: Training images that have a label; unlabelled ones are left out.
        val: Empty where there is no official validation split.
        test: All of them have a label.
    """

    name: str
    classes: int
    metric: str
    train: Part
    val: Part
    test: Part

    @property
    def multilabel(self) -> bool:
        """Whether an image may show several classes."""
        return self.test.labels.ndim == 2

    def rows(self) -> np.ndarray:
        """Rows of the test split in the dataset's arrays, int64 (M,)."""
        return self.test.rows


def _check_labels(prepared: Prepared, labels: np.ndarray, artefact: Artefact, name: str) -> None:
    path, classes = artefact.path("labels.npy"), len(prepared.classes)
    if prepared.multilabel:
        if labels.shape[1:] != (classes,) or labels.max(initial=0) > 1:
            raise DataError(
                f"{path}: split {name} has labels {labels.shape} up to {labels.max(initial=0)}, "
                f"expected 0 or 1 for each of {classes} classes"
            )
        return
    if len(labels) and labels.max() >= classes:
        raise DataError(
            f"{path}: label {labels.max()} in split {name}, but card.json names {classes} classes"
        )
    if name != "train" and (unlabelled := int((labels < 0).sum())) > 0:
        raise DataError(
            f"{path}: {unlabelled} of {len(labels)} images of split {name} are unlabelled "
            "(label -1); a probe needs labelled images"
        )


def _part(prepared: Prepared, artefact: Artefact, name: str) -> Part:
    start, stop = prepared.card["splits"].get(name, (0, 0))
    if not 0 <= start <= stop <= len(prepared.labels):
        raise DataError(
            f"{artefact.path('card.json')}: split {name} is rows {start} to {stop}, "
            f"but the dataset has {len(prepared.labels)} rows"
        )
    labels, rows = prepared.labels[start:stop], np.arange(start, stop, dtype=np.int64)
    _check_labels(prepared, labels, artefact, name)
    known = np.ones(len(labels), bool) if prepared.multilabel else labels >= 0
    if known.all():
        return Part(window(prepared.images, start, stop), labels, rows)
    if not known.any():
        raise DataError(
            f"{artefact.path('labels.npy')}: all {len(labels)} images of split {name} are "
            "unlabelled (label -1); a probe needs labelled images"
        )
    return Part(Chosen(prepared.images, rows[known]), labels[known], rows[known])


def check_given(datasets: Sequence[Artefact], wanted: Iterable[str]) -> None:
    """Refuse datasets that are not those of a spec, in its order.

    Raises:
        ConfigError: With what was asked for and what was given.
    """
    asked, given = list(wanted), [artefact.folder.name for artefact in datasets]
    if given != asked:
        raise ConfigError(
            f"--datasets: the spec asks for {len(asked)} in this order: {', '.join(asked)}; "
            f"given are {len(given)}: {', '.join(given) or 'none'}"
        )


def open_task(artefact: Artefact) -> Task:
    """Open a prepared dataset for evaluation.

    Raises:
        DataError: If train or test is empty or without labels, or the card does not fit the arrays
            or names a metric that is unknown or not for such labels.
    """
    prepared = open_prepared(artefact)
    card = artefact.path("card.json")
    if missing := [key for key in ("splits", "classes", "metric") if key not in prepared.card]:
        raise DataError(f"{card}: the key {', '.join(missing)} is missing")
    metric = prepared.card["metric"]
    if metric not in METRICS:
        raise DataError(f'{card}: unknown metric "{metric}"; known: {", ".join(METRICS)}')
    if prepared.multilabel != (metric in RANKED):
        kind = "several classes" if prepared.multilabel else "one class"
        raise DataError(f'{card}: metric "{metric}" does not fit images that show {kind}')
    parts = {name: _part(prepared, artefact, name) for name in ("train", "val", "test")}
    for name in ("train", "test"):
        if len(parts[name]) == 0:
            raise DataError(f"{card}: split {name} is empty, so nothing can be judged")
    if prepared.multilabel and not parts["test"].labels.any():
        raise DataError(f"{artefact.path('labels.npy')}: no image of split test shows any class")
    return Task(artefact.folder.name, len(prepared.classes), metric, **parts)
