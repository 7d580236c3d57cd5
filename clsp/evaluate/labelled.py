"""The labelled splits a probe is allowed to use, checked before anything is computed."""

from dataclasses import dataclass

import numpy as np

from clsp.data.prepared import Prepared, Split, open_prepared
from clsp.evaluate.metrics import METRICS
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact


@dataclass(frozen=True)
class Task:
    """A dataset as a classification task."""

    name: str
    classes: int
    metric: str  # "top1" or "mean_per_class"
    train: Split
    val: Split  # empty where there is no official validation split
    test: Split

    def rows(self) -> np.ndarray:
        """Rows of the test split in the dataset's arrays, int64 (M,)."""
        return np.arange(self.test.start, self.test.start + len(self.test), dtype=np.int64)


def _checked(prepared: Prepared, artefact: Artefact, name: str) -> Split:
    start, stop = prepared.card["splits"].get(name, (0, 0))
    if not 0 <= start <= stop <= len(prepared.labels):
        raise DataError(
            f"{artefact.path('card.json')}: split {name} is rows {start} to {stop}, "
            f"but the dataset has {len(prepared.labels)} rows"
        )
    labels, classes = prepared.labels[start:stop], len(prepared.classes)
    if (unlabelled := int((labels < 0).sum())) > 0:
        raise DataError(
            f"{artefact.path('labels.npy')}: {unlabelled} of {len(labels)} images of split {name} "
            "are unlabelled (label -1); a probe needs labelled images"
        )
    if len(labels) and labels.max() >= classes:
        raise DataError(
            f"{artefact.path('labels.npy')}: label {labels.max()} in split {name}, "
            f"but card.json names {classes} classes"
        )
    return Split(prepared.images[start:stop], labels, start)


def open_task(artefact: Artefact) -> Task:
    """Open a prepared dataset for evaluation.

    Raises:
        DataError: If train or test is empty, an image is unlabelled, or the card does not fit the
            arrays or names an unknown metric.
    """
    prepared = open_prepared(artefact)
    card = artefact.path("card.json")
    if missing := [key for key in ("splits", "classes", "metric") if key not in prepared.card]:
        raise DataError(f"{card}: the key {', '.join(missing)} is missing")
    metric = prepared.card["metric"]
    if metric not in METRICS:
        raise DataError(f'{card}: unknown metric "{metric}"; known: {", ".join(METRICS)}')
    splits = {name: _checked(prepared, artefact, name) for name in ("train", "val", "test")}
    for name in ("train", "test"):
        if len(splits[name]) == 0:
            raise DataError(f"{card}: split {name} is empty, so nothing can be judged")
    return Task(artefact.folder.name, len(prepared.classes), metric, **splits)
