"""Text files that list a dataset's images, with errors that name the file."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

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


def file_item(path: Path, label: int | tuple[int, ...], folder: Path) -> Item:
    """An image file with its label; `folder` is the dataset's own, below which it is named."""
    return Item(partial(open_picture, str(path)), label, path.relative_to(folder).as_posix(), path)


def refuse_repeats(splits: Mapping[str, Iterable[Item]], where: Path) -> None:
    """Check that no image is listed twice, in one split or in two.

    Raises:
        DataError: Naming `where`, the image and the splits.
    """
    seen: dict[str, str] = {}
    for split, items in splits.items():
        for item in items:
            if item.name in seen:
                raise DataError(
                    f"{where}: lists {item.name} twice, in {seen[item.name]} and in {split}"
                )
            seen[item.name] = split
