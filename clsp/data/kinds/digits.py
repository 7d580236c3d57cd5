"""Handwritten digits that ship inside scikit-learn: 1797 grey images of 8 x 8."""

from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from clsp.config.strict import NonNegativeInt, Strict
from clsp.data.catalog import Item, Source
from clsp.runtime.keys import numpy_stream

LEVELS = 16  # a pixel counts the set pixels of a 4 x 4 block


class Config(Strict):
    """How the test split is drawn."""

    fetched: ClassVar[bool] = False
    test_fraction: Annotated[float, Field(gt=0, lt=1)]  # of each class
    seed: NonNegativeInt


def test_rows(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw the test split, class by class.

    Args:
        labels: int64 (N,).
        fraction: Share of each class, rounded; at least one image stays on either side.
        seed: Of the draw.

    Returns:
        bool (N,), true for test.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        drawn = numpy_stream(seed, "digits: test split", int(label)).permutation(rows)
        chosen[drawn[:count]] = True
    return chosen


def _picture(grey: np.ndarray) -> np.ndarray:
    scaled = np.round(grey * (255 / LEVELS)).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2)


def read(config: Config, files: Path | None) -> Source:
    """Read the embedded digits; `files` is not used."""
    from sklearn.datasets import load_digits  # 1.3 s

    loaded = load_digits()
    labels = loaded.target.astype(np.int64)
    test = test_rows(labels, config.test_fraction, config.seed)
    items = [
        Item(partial(_picture, grey), int(label), f"{row:04d}")
        for row, (grey, label) in enumerate(zip(loaded.images, labels, strict=True))
    ]
    splits = {
        "train": [items[row] for row in np.flatnonzero(~test)],
        "val": [],
        "test": [items[row] for row in np.flatnonzero(test)],
    }
    drawing = (
        f"test: {config.test_fraction:g} of each class, drawn without replacement from seed "
        f"{config.seed} (numpy's Philox generator, keyed by class); train: the rest"
    )
    return Source(tuple(str(name) for name in loaded.target_names), splits, drawing)
