"""Reads which group every training image of a folder belongs to: a video, a patient, a scene."""

import csv
from collections.abc import Iterator
from pathlib import Path

from clsp.runtime.errors import DataError
from clsp.runtime.registry import nearest

PATH = "path"  # the column that names images


def groups_file(root: Path, groups: str) -> Path:
    """Where the CSV lies: relative to the image folder, unless its path is absolute."""
    return root / Path(groups).expanduser()


def _column(path: Path, header: list[str], name: str) -> int:
    places = [place for place, found in enumerate(header) if found == name]
    if len(places) != 1:
        listed = ", ".join(header) or "nothing"
        raise DataError(
            f'{path}: expected one column "{name}" in line 1, found {len(places) or "none"}'
            f"{nearest(name, header) if not places else ''}; the columns are {listed} "
            "(separated by commas)"
        )
    return places[0]


def _rows(path: Path, column: str) -> Iterator[tuple[int, str, str]]:
    """Line number, image and group of each row.

    Raises:
        DataError: If the file cannot be read or a row has another number of cells than the header.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            image, group = _column(path, header, PATH), _column(path, header, column)
            for cells in reader:
                if not cells:
                    continue  # an empty line
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}: line {reader.line_num}: expected {len(header)} cells as in "
                        f"line 1, found {len(cells)}"
                    )
                yield reader.line_num, cells[image], cells[group].strip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: no CSV ({error})") from error


def read_groups(path: Path, column: str, images: list[str]) -> dict[str, str]:
    """Groups of the training images.

    Args:
        path: A CSV in UTF-8 with a header, the column `path` and one that names the group.
        column: Name of that column. An empty cell means that the image belongs to no group.
        images: Training images, relative to the folder, with forward slashes.

    Returns:
        The group of every image that belongs to one.

    Raises:
        DataError: Naming the file and line, what was expected and what was found.
    """
    known, found = set(images), {}
    for line, image, group in _rows(path, column):
        if image not in known:
            raise DataError(
                f'{path}: line {line}: expected a training image such as "{images[0]}", '
                f'found "{image}"{nearest(image, images)}'
            )
        before, group_before = found.setdefault(image, (line, group))
        if group_before != group:
            raise DataError(
                f'{path}: line {line}: expected group "{group_before}" for {image} as in line '
                f'{before}, found "{group}"'
            )
    absent = [image for image in images if image not in found]
    if absent:
        raise DataError(
            f"{path}: expected a row for each of the {len(images)} training images, found none "
            f"for {len(absent)} of them: {absent[0]}; leave the cell empty for no group"
        )
    named = {image: group for image, (_, group) in found.items() if group}
    if not named:
        raise DataError(f'{path}: expected groups in column "{column}", found only empty cells')
    return named
