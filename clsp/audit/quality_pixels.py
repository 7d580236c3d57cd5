"""Pixels of candidates against bank and dataset, by a second path: numpy only."""

from collections.abc import Iterator

import numpy as np

from clsp.audit.quality import Arrays
from clsp.data.prepared import Images

BLOCK = 1 << 24  # values of training images held at a time

Problem = tuple[str, str]  # expected, found


def compare(what: str, found: np.ndarray, expected: np.ndarray) -> Problem | None:
    """The first place at which two arrays differ, or None."""
    if np.array_equal(found, expected):
        return None
    place = tuple(np.argwhere(found != expected)[0])
    return f"{what} {place}: {expected[place]}", f"{found[place]}"


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    gap = np.asarray(one).astype(np.int64) - np.asarray(other).astype(np.int64)
    return (gap**2).sum(axis=(-3, -2, -1))


def _search(images: np.ndarray, training: Images) -> np.ndarray:
    """Sums of squared differences of some images (n, H, W, 3) from all training images, (n, N)."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    step, parts = max(1, BLOCK // flat.shape[1]), []
    for start in range(0, len(training), step):
        block = np.asarray(training[start : start + step])
        rows = block.reshape(len(block), -1).astype(np.float64)
        parts.append((flat**2).sum(1)[:, None] + (rows**2).sum(1) - 2 * flat @ rows.T)
    return np.concatenate(parts, axis=1)


def _images(training: Images, rows: np.ndarray) -> np.ndarray:
    """Some training images (n, H, W, 3)."""
    return np.concatenate([np.asarray(training[n : n + 1]) for n in rows.tolist()])


def compared(
    found: Arrays, bank: np.ndarray, training: Images, places: np.ndarray
) -> Iterator[Problem | None]:
    """Candidates of some anchors against the images that are on record for them.

    Args:
        found: What was stored of M anchors.
        bank: Candidates of all anchors, uint8 (N, K, H, W, 3).
        training: All training images.
        places: Which of the M.
    """
    k = found["nearest_pixel"].shape[1]
    for place in places.tolist():
        row = int(found["rows"][place])
        drawn = np.asarray(bank[row, :k])
        named = np.array([row, int(found["others"][place]), *found["nearest_pixel"][place]])
        images = _images(training, named)
        pairs = [_squares(drawn[i], drawn[j]) for j in range(k) for i in range(j)]
        for name, expected in (
            ("own_squares", _squares(drawn, images[0])),
            ("random_squares", _squares(drawn, images[1])),
            ("pair_squares", np.array(pairs, np.int64)),
            ("nearest_squares", _squares(drawn, images[2:])),
        ):
            yield compare(f"{name} of anchor {row}", found[name][place], expected)


def searched(
    found: Arrays, bank: np.ndarray, training: Images, places: np.ndarray
) -> Iterator[Problem | None]:
    """The nearest of all training images for candidates of some anchors; each is read twice.

    Args:
        found: What was stored of M anchors.
        bank: Candidates of all anchors, uint8 (N, K, H, W, 3).
        training: All training images.
        places: Which of the M.
    """
    rows, k = found["rows"][places].tolist(), found["nearest_pixel"].shape[1]
    distances = _search(np.concatenate([np.asarray(bank[row, :k]) for row in rows]), training)
    nearest = distances.argmin(axis=1)
    beside = _search(_images(training, nearest), training)
    beside[np.arange(len(nearest)), nearest] = np.inf
    for name, expected in (
        ("nearest_pixel", nearest),
        ("nearest_squares", distances.min(axis=1)),
        ("neighbour_squares", beside.min(axis=1)),
    ):
        told = found[name][places]
        yield compare(f"{name} of anchors {rows}", told, expected.reshape(told.shape))
