"""Reads bundles that somebody else made: nothing is trusted, and nothing is written elsewhere.

Before anything is unpacked, the archive's list of members is compared with the manifest. Every file
is then written once, by name and size of the manifest, and its sha256 has to come out.
"""

import hashlib
import io
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from clsp.bundle.layout import (
    LONGEST_NAME,
    MANIFEST,
    MOST_FILES,
    Contents,
    Member,
    collisions,
    parse_contents,
    wrong_name,
)
from clsp.runtime.canonical import parse_json
from clsp.runtime.errors import DataError
from clsp.runtime.files import writing
from clsp.runtime.progress import BYTES, Progress

BLOCK = 1 << 20
LARGEST_MANIFEST = 1 << 26  # bytes
LONGEST_LIST = 1 << 26  # bytes that the archive's list of members may have
RATIO, SMALL = 1100, 1 << 20  # deflate makes nothing smaller than by a factor of 1032
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    ValueError,
    UnicodeError,
)


class _Bounded(io.BufferedReader):
    """An archive of which no more is read at once than the list of a bundle's members can have.

    zipfile reads that list in one go, whatever length the archive states for it.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file.

        Raises:
            zipfile.BadZipFile: If more is asked for, and is there.
        """
        wanted = LONGEST_LIST + 1 if size is None or size < 0 else min(size, LONGEST_LIST + 1)
        if len(found := super().read(wanted)) > LONGEST_LIST:
            raise zipfile.BadZipFile(f"its list of members has more than {LONGEST_LIST} bytes")
        return found


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, after its outer shape was checked.

    Raises:
        DataError: If it is no whole zip archive, or its list is longer than any bundle's.
    """
    try:
        with _Bounded(io.FileIO(path)) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except BROKEN as error:
        raise DataError(f"{path}: not a whole bundle ({error}); fetch it anew") from error


def _wrong_with(entry: zipfile.ZipInfo) -> str:
    """Why a member of the archive is refused, whatever the manifest says, or nothing."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.orig_filename != entry.filename or (wrong := wrong_name(entry.filename)):
        return "another name than it shows" if entry.orig_filename != entry.filename else wrong
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        return "the kind of a link, a folder or a device"
    if entry.flag_bits & ENCRYPTED or entry.compress_type not in METHODS:
        return "a packing that bundles do not use"
    if entry.file_size > RATIO * entry.compress_size + SMALL:
        return f"{entry.file_size} bytes out of {entry.compress_size}"
    return ""


def _check_list(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES + 1:
        raise DataError(f"{path}: {len(entries)} members; at most {MOST_FILES} are read")
    for entry in entries:
        if wrong := _wrong_with(entry):
            raise DataError(f"{path}: the member {entry.filename[:LONGEST_NAME]!r} has {wrong}")
    if twice := collisions([entry.filename for entry in entries]):
        raise DataError(f"{path}: the member {twice!r} is there twice, or is a folder too")
    end = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < end:
            raise DataError(f"{path}: the member {entry.filename!r} overlaps another one")
        end = entry.header_offset + 30 + len(entry.filename.encode()) + entry.compress_size
    return {entry.filename: entry for entry in entries}


def read_contents(path: Path, archive: zipfile.ZipFile) -> Contents:
    """The manifest, and that the archive holds exactly what it names.

    Raises:
        DataError: If it is missing, malformed, or names other members or sizes.
    """
    entries = _check_list(path, archive)
    if MANIFEST not in entries:
        raise DataError(f"{path}: not a bundle: it has no {MANIFEST}")
    if entries[MANIFEST].file_size > LARGEST_MANIFEST:
        raise DataError(f"{path}: {MANIFEST} has {entries[MANIFEST].file_size} bytes")
    try:
        contents = parse_contents(parse_json(archive.read(MANIFEST).decode("utf-8")))
    except (*BROKEN, RecursionError) as error:
        raise DataError(f"{path}: {MANIFEST}: {error}") from error
    stored = {name: each for name, each in contents.members.items() if each.part is None}
    there = entries.keys() - {MANIFEST}
    if there != stored.keys():
        absent, strange = sorted(stored.keys() - there), sorted(there - stored.keys())
        told = f"lacks {absent[0]!r}" if absent else f"holds {strange[0]!r}, which is not named"
        raise DataError(f"{path}: the archive {told}; {MANIFEST} names {len(stored)} members")
    for name, member in stored.items():
        if entries[name].file_size != member.size:
            told = f"{entries[name].file_size} bytes instead of {member.size} of {MANIFEST}"
            raise DataError(f"{path}: the member {name!r} has {told}")
    return contents


def _copy(source: IO[bytes], target: IO[bytes], length: int, digest: Any) -> int:
    """Copy so many bytes at most; returns how many came."""
    left = length
    while left and (block := source.read(min(BLOCK, left))):
        digest.update(block)
        target.write(block)
        left -= len(block)
    return length - left


def _write(archive: zipfile.ZipFile, member: Member, root: Path, path: Path) -> None:
    """Write one file; its bytes have to be those named. Files that hold parts are there already."""
    digest, part, place = hashlib.sha256(), member.part, root / member.name
    head = part.head if part else b""
    digest.update(head)
    try:
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            with (
                open(root / part.member, "rb") if part else archive.open(member.name) as source,
                open(place, "xb") as target,
            ):
                source.seek(part.start if part else 0)
                target.write(head)
                length = part.length if part else member.size
                came = len(head) + _copy(source, target, length, digest)
    except BROKEN as error:
        raise DataError(f"{path}: the member {member.name!r} is damaged ({error})") from error
    if came != member.size or digest.hexdigest() != member.sha256:
        found = f"{came} bytes with sha256 {digest.hexdigest()[:16]}"
        wanted = f"{member.size} with {member.sha256[:16]}"
        raise DataError(f"{path}: the member {member.name!r} has {found} instead of {wanted}")


def unpack(path: Path, root: Path) -> Contents:
    """Check a bundle and write its files below a folder.

    Args:
        path: The bundle.
        root: An empty folder.

    Raises:
        DataError: If the bundle is damaged or hostile, or there is no room for it.
    """
    with opened_archive(path) as archive:
        contents = read_contents(path, archive)
        total = sum(member.size for member in contents.members.values())
        if total > (free := shutil.disk_usage(root).free):
            told = f"{total} bytes, and {free} are free in {root}"
            raise DataError(f"{path}: unpacked it takes {told}; --unpack DIR names another folder")
        ordered = sorted(contents.members.values(), key=lambda member: member.part is not None)
        with Progress("unpack", total, BYTES) as progress:
            for member in ordered:
                _write(archive, member, root, path)
                progress.step(member.size)
    return contents
