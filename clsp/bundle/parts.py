"""Files whose bytes stand in another one: shards, which are ranges of their bank, and copies.

They are compared byte by byte, so that a shard that differs from its bank is stored as it is.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clsp.bundle.layout import HEAD, Part
from clsp.bundle.pack import TEXT
from clsp.report.records import Records

BLOCK = 1 << 20
LARGE = 1 << 20  # bytes from which on a copy is looked for
BANK = "images.npy"


def _start(stream: BinaryIO) -> tuple[int, int]:
    """Offset of an array's data and its rows.

    Raises:
        ValueError: If it is no array in C order.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran or not shape or dtype.hasobject:
        raise ValueError("no array of rows")
    return stream.tell(), shape[0]


def _equal(one: BinaryIO, other: BinaryIO, length: int) -> bool:
    while length:
        block = one.read(min(BLOCK, length))
        if not block or block != other.read(len(block)):
            return False
        length -= len(block)
    return True


def _of_bank(bank: Path, shards: list[Path]) -> Iterator[tuple[Path, int, int, bytes]]:
    """Shards that are ranges of their bank: path, start and length there, and their header."""
    with open(bank, "rb") as whole:
        place, _ = _start(whole)
        for path in shards:
            size = path.stat().st_size
            with open(path, "rb") as stream:
                start, _ = _start(stream)
                stream.seek(0)
                head, length = stream.read(start), size - start
                whole.seek(place)
                if len(head) <= HEAD and length and _equal(stream, whole, length):
                    yield path, place, length, head
            place += size - start


def _copies(names: Mapping[Path, str]) -> Iterator[tuple[Path, Path]]:
    """Large files with the bytes of an earlier one, with that one; in the order of names."""
    seen: dict[tuple[int, bytes], list[Path]] = {}
    for path in sorted(names, key=names.__getitem__):
        if path.suffix in TEXT or (size := path.stat().st_size) < LARGE:
            continue
        with open(path, "rb") as stream:
            alike = seen.setdefault((size, stream.read(HEAD)), [])
        for other in alike:
            with open(path, "rb") as one, open(other, "rb") as two:
                if _equal(one, two, size):
                    yield path, other
                    break
        else:
            alike.append(path)


def shared_parts(records: Records, names: Mapping[Path, str]) -> dict[str, Part]:
    """Files that need not be stored, by name.

    Args:
        records: Of the results.
        names: Path of every file that is packed -> its name in the bundle.
    """
    found: dict[str, Part] = {}
    for artefact in records:
        bank = artefact.folder / BANK
        if artefact.stage != "gather-bank" or bank not in names:
            continue
        shards = [
            artefact.folder / "shards" / f"{name}.npy"
            for name in records.shards_of(artefact.folder.name)
        ]
        try:
            held = list(_of_bank(bank, [path for path in shards if path in names]))
        except (OSError, ValueError, EOFError):
            continue  # damaged: packed as it is, for the audit to find
        for path, start, length, head in held:
            found[names[path]] = Part(names[bank], start, length, head)
    rest = {path: name for path, name in names.items() if name not in found}
    for path, other in _copies(rest):
        held_by = {part.member for part in found.values()}
        if names[path] not in held_by:  # what others are parts of is stored
            found[names[path]] = Part(names[other], 0, path.stat().st_size)
    return found
