"""Text and mat files that list a dataset's images, with errors that name the file."""

import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from clsp.data.catalog import Item
from clsp.data.pictures import open_picture
from clsp.runtime.errors import DataError


def read_text(path: Path) -> str:
    """Content of a text file.

    Raises:
        DataError: If it is missing or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error.reason})") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, stripped, without empty ones.

    Raises:
        DataError: If it is missing, is not text, or holds no line.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: the list is empty")
    return lines


def read_mat(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Integer vectors of a Matlab file.

    Raises:
        DataError: If the file is missing or malformed, or lacks one of the names.
    """
    from scipy.io import loadmat  # 0.3 s, and only one kind needs it
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, squeeze_me=True, variable_names=list(names))
        vectors = {
            name: np.atleast_1d(content[name]).astype(np.int64) for name in names if name in content
        }
    except (MatReadError, OSError, ValueError, TypeError, NotImplementedError, zlib.error) as error:
        raise DataError(f"{path}: not a readable mat file ({error})") from error
    absent = [name for name in names if name not in vectors]
    if absent:
        raise DataError(f"{path}: holds no {absent[0]}")
    return vectors


def file_item(path: Path | str, label: int) -> Item:
    """An image file with its label."""
    return Item(partial(open_picture, str(path)), label)
