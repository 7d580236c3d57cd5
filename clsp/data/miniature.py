"""Draws the miniature stand-ins of the fetched sets: pictures only; layouts are the kinds' own.

Every image is a function of (seed, dataset, class, number): a motif of clsp.data.motifs in a
random pose, under random light, with noise. Classes can be told apart, but not by one pixel.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from clsp.runtime.keys import numpy_stream

# Images per class and split: enough for a transfer probe to fit, few enough to draw in a moment.
COUNTS = {"train": 16, "val": 12, "test": 12}
SHIFT = 4  # images of each class by which a partition differs from the one before
SIDES = (24, 40)  # of JPEGs, pixels, drawn apart for width and height
QUALITY = 90
MAT_TITLE = 116  # bytes of free text that open a Matlab file
NOISE = 0.06  # standard deviation, of the range 0..1
LIGHT = (0.75, 1.1)  # factor on all channels

# (stream, class, x, y) -> colours in 0..1, (H, W, 3); x and y in about [-1, 1], (H, W)
Motif = Callable[[np.random.Generator, int, np.ndarray, np.ndarray], np.ndarray]


def _plane(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres; the shorter side spans [-1, 1]."""
    half = min(width, height) / 2
    x = (np.arange(width) + 0.5 - width / 2) / half
    y = (np.arange(height) + 0.5 - height / 2) / half
    return np.meshgrid(x, y)


def paint(
    motif: Motif, seed: int, dataset: str, label: int, number: int, side: int | None = None
) -> np.ndarray:
    """Paint one image.

    Args:
        motif: What the dataset shows.
        seed: Of the miniature.
        dataset: Kind; keeps the draws of different kinds apart.
        label: Class.
        number: Counts the images of a class over all splits.
        side: Width and height in pixels; None draws both.

    Returns:
        uint8 (H, W, 3).
    """
    stream = numpy_stream(seed, "miniature", dataset, label, number)
    low, high = SIDES
    width, height = (side, side) if side else stream.integers(low, high, 2, endpoint=True)
    colours = motif(stream, label, *_plane(width, height))
    lit = colours * stream.uniform(*LIGHT)
    noisy = lit + stream.normal(0, NOISE, lit.shape)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def examples(split: str, classes: int, partition: int = 1) -> list[tuple[int, int]]:
    """(class, number) of every image of a split, classes taking turns; splits share none.

    Another `partition` deals the same images to the splits in another way.
    """
    before = {"train": 0, "val": COUNTS["train"], "test": COUNTS["train"] + COUNTS["val"]}[split]
    shift = before + SHIFT * (partition - 1)
    numbers = [(shift + place) % sum(COUNTS.values()) for place in range(COUNTS[split])]
    return [(label, number) for number in numbers for label in range(classes)]


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a JPEG, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG", quality=QUALITY)


def save_mat(path: Path, content: dict[str, np.ndarray]) -> None:
    """Write a Matlab file without the time in its header: equal seeds give equal bytes."""
    from scipy.io import savemat  # 0.3 s, and only two kinds need it

    buffer = io.BytesIO()
    savemat(buffer, content)
    title = b"MATLAB 5.0 MAT-file, drawn by clsp".ljust(MAT_TITLE)
    path.write_bytes(title + buffer.getvalue()[MAT_TITLE:])


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a list file, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
