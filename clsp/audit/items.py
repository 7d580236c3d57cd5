"""The list of a prepared dataset's images (items.csv), read by the audit's own code."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = ["split", "name", "label", "source", "stored"]
DIGITS = 32  # of a digest in the list


@dataclass(frozen=True)
class Items:
    """Columns of the list, one entry per row of the dataset's arrays."""

    split: list[str]
    name: list[str]
    label: list[str]
    source: list[str]
    stored: list[str]

    def __len__(self) -> int:
        return len(self.split)


def read_items(path: Path) -> Items:
    """Read the list.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no such list.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            header, *lines = csv.reader(stream, strict=True)
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error
    if header != HEADER:
        raise ValueError(f"{path}: header {','.join(header)} instead of {','.join(HEADER)}")
    if wrong := [number for number, line in enumerate(lines) if len(line) != len(HEADER)]:
        raise ValueError(f"{path}: row {wrong[0]} has {len(lines[wrong[0]])} fields")
    columns = zip(*lines, strict=True) if lines else [()] * len(HEADER)
    return Items(*(list(column) for column in columns))


def is_card(card: Any) -> bool:
    """Whether a parsed card.json has classes, and splits that are ranges of rows."""
    if not isinstance(card, dict) or not isinstance(card.get("classes"), list):
        return False
    splits = card.get("splits")
    if not isinstance(splits, dict) or not {"train", "test"} <= splits.keys():
        return False
    ranges = [r for r in splits.values() if isinstance(r, list) and len(r) == 2]
    whole = len(ranges) == len(splits) and all(type(n) is int for r in ranges for n in r)
    return whole and all(0 <= start <= stop for start, stop in ranges)


def digest_of(pixels: Any) -> str:
    """What the list holds of an image: the first digits of the sha256 of its bytes in C order."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:DIGITS]


def lines_sha256(lines: Iterable[str]) -> str:
    """Sha256 over lines, each with its line feed."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
