"""Image files of any format that PIL reads -> square uint8 RGB arrays."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from clsp.data.catalog import Picture
from clsp.runtime.errors import DataError

# What PIL raises for a broken file depends on the format.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error,
    NotImplementedError, TypeError, AttributeError, OverflowError, MemoryError,
)  # fmt: skip


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"grey values {low}..{high} are outside 16 bits")
    grey = np.round(values / 257).astype(np.uint8)  # 65535 -> 255; PIL's own convert clips instead
    return Image.fromarray(grey)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: 16-bit greys are scaled, transparency is laid on white.

    Raises:
        ValueError: If the grey values have no fixed range (floating point, or beyond 16 bits).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save the image as 8 or 16 bit")
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image.convert("RGB")


def decode(file: Path | str | BinaryIO, name: Path | str, upright: bool = False) -> Image.Image:
    """Decode one image; of several frames, the first.

    Args:
        file: Its path, or its bytes as a file.
        name: What messages call it.
        upright: Turn the image as its EXIF orientation says.

    Raises:
        DataError: Naming it, if it is missing, truncated or not an image.
    """
    try:
        with Image.open(file) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image) if upright else image)
    except (*BROKEN, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{name}: not a readable image ({reason})") from error


def open_picture(path: Path | str, upright: bool = False) -> Image.Image:
    """Read one image file; arguments and errors as of `decode`."""
    return decode(path, path, upright)


def fit(picture: Picture, size: int, resize: int | None = None) -> np.ndarray:
    """Make a square: shorter side to `resize` (bicubic, antialiased; D24), then the centre.

    Rounding is torchvision's (Resize, then CenterCrop), which methods.md 4 names for transfer.

    Args:
        picture: RGB image, or uint8 (H, W, 3).
        size: Side in pixels.
        resize: Shorter side before the centre is cut; None: `size`, and an image that already is
            size x size stays as it is.

    Returns:
        uint8 (size, size, 3).
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    width, height = image.size
    target = size if resize is None else resize
    if (width, height) == (size, size) and target == size:
        return np.asarray(image)
    shorter = min(width, height)
    scaled = (int(target * width / shorter), int(target * height / shorter))
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))
