"""Crops of encoded images: decoded, cut and resized by PIL from all of their pixels, in threads.

The result is torchvision's RandomResizedCrop of the same box on a PIL image: cut out first, then
resized with antialiasing, rounded to 8 bits. However many crops a batch takes of an image, it is
decoded once.
"""

from collections import defaultdict
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clsp.data.decoders import submit
from clsp.data.encoded import EncodedImages

KERNELS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Cuts:
    """Crops that are wanted.

    Attributes:
        rows: Image of each crop, int64 (B,).
        boxes: Top, left, height and width in pixels of the image, int64 (B, 4).
        mirrored: Which are mirrored left to right, bool (B,).
        interpolation: "bilinear" or "bicubic".
    """

    rows: np.ndarray
    boxes: np.ndarray
    mirrored: np.ndarray
    interpolation: str


class Cutting:
    """Crops that are being made in the background."""

    def __init__(self, images: EncodedImages, wanted: list[Cuts], size: int) -> None:
        """Begin.

        Args:
            images: What to cut.
            wanted: Each item is answered by one array.
            size: Side of the crops, pixels.
        """
        self._images, self._wanted, self._size = images, wanted, size
        self._made = [np.empty((len(cuts.rows), size, size, 3), np.uint8) for cuts in wanted]
        places = defaultdict(list)
        for number, cuts in enumerate(wanted):
            for place, row in enumerate(cuts.rows.tolist()):
                places[row].append((number, place))
        self._work: list[Future[None]] = [
            submit(self._cut_all, row, where) for row, where in places.items()
        ]

    def _cut_all(self, row: int, places: list[tuple[int, int]]) -> None:
        """Decode one image and make all of its crops."""
        picture = self._images.picture(row)
        for number, place in places:
            cuts = self._wanted[number]
            top, left, height, width = cuts.boxes[place].tolist()
            crop = picture.crop((left, top, left + width, top + height))
            pixels = np.asarray(crop.resize((self._size, self._size), KERNELS[cuts.interpolation]))
            self._made[number][place] = pixels[:, ::-1] if cuts.mirrored[place] else pixels

    def wait(self) -> list[np.ndarray]:
        """The crops, uint8 (B, size, size, 3) for each item of what was wanted.

        Raises:
            DataError: Naming the image that cannot be decoded.
        """
        for work in self._work:
            work.result()
        return self._made
