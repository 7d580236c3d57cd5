"""Which training images validate: the official split, or a part of train carved by a named rule."""

from typing import Any

import numpy as np

from clsp.config.evaluation import FineTuneSpec, LogisticSpec
from clsp.evaluate.labelled import Task
from clsp.runtime.canonical import sha256_array
from clsp.runtime.errors import DataError
from clsp.runtime.rng import numpy_stream


def ssl_transfer_draw(count: int, fraction: float, seed: int) -> np.ndarray:
    """The validation images of the published transfer code, index by index.

    ssl-transfer (https://github.com/linusericsson/ssl-transfer, linear.py) shuffles the numbers
    0, 1, ... with numpy's global generator, seeded with 0, and the first floor(fraction * count)
    validate. They are the same images where ours are stored in its order.

    Args:
        count: Training images N.
        fraction: Share of them.
        seed: Of the generator.

    Returns:
        int64 (V,), in the order of the draw.
    """
    order = np.arange(count, dtype=np.int64)
    np.random.RandomState(seed).shuffle(order)
    return order[: int(np.floor(fraction * count))]


def stratified_draw(labels: np.ndarray, fraction: float, seed: int, name: str) -> np.ndarray:
    """The same share of every class (D15).

    Args:
        labels: int64 (N,).
        fraction: Share of each class, rounded; at least one image, and at least one is left to
            train on. A class of one image only trains.
        seed: With `name`, the key of the draw.
        name: Of the dataset.

    Returns:
        int64 (V,), ascending.
    """
    chosen: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        stream = numpy_stream(seed, "validation", name, int(label))
        chosen.append(stream.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _carve(task: Task, spec: LogisticSpec | FineTuneSpec) -> np.ndarray:
    labels, fraction = task.train.labels, spec.validation_fraction
    if spec.validation == "ssl_transfer":
        drawn = ssl_transfer_draw(len(labels), fraction, spec.seed)
    elif task.multilabel:
        raise DataError(
            f'dataset "{task.name}": a stratified validation split is not defined where images '
            "show several classes; use validation: ssl_transfer"
        )
    else:
        drawn = stratified_draw(labels, fraction, spec.seed, task.name)
    if len(drawn) == 0:
        raise DataError(
            f'dataset "{task.name}": no validation split can be carved from {len(labels)} training '
            f"images: a share of {fraction:g} ({spec.validation}) is no image"
        )
    return drawn


def validation_of(
    task: Task, spec: LogisticSpec | FineTuneSpec
) -> tuple[np.ndarray, dict[str, Any]]:
    """Which of the images of train and val, taken together in this order, validate.

    Args:
        task: Its val is used where there is one.
        spec: Rule, share and seed, where there is none.

    Returns:
        bool (N,), True for validation; and how they were chosen: rule, count and `rows_sha256`, the
        hash of their rows in the dataset's arrays, ascending (int64); of a carved split also seed
        and fraction.

    Raises:
        DataError: If nothing can be carved.
    """
    rows = np.concatenate([task.train.rows, task.val.rows])
    validates = np.zeros(len(rows), bool)
    about: dict[str, Any] = {"rule": "official"}
    if len(task.val):
        validates[len(task.train) :] = True
    else:
        validates[_carve(task, spec)] = True
        fraction = spec.validation_fraction
        about = {"rule": spec.validation, "seed": spec.seed, "fraction": fraction}
    about |= {"count": int(validates.sum()), "rows_sha256": sha256_array(rows[validates])}
    return validates, about
