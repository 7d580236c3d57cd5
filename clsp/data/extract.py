"""Unpacks an archive without trusting it (audit.md 5).

Only regular files and folders, only relative names below the target, never through a link, never
over an existing file, and within limits; files are written here, by no library's extract call.
"""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from clsp.runtime.errors import DataError
from clsp.runtime.progress import Progress

BLOCK = 1 << 20
# What a reader raises for a damaged archive; OSError covers gzip's own.
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    files: int = 1_000_000
    size: int = 64 << 30  # bytes of all files together
    ratio: int = 200  # bytes per byte of the archive; photos are near 1, bombs above 1000


@dataclass
class Member:
    """One regular file of an archive; `position` tells how far into the archive we are."""

    name: str
    stream: IO[bytes]
    position: int


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """Normalise a member's name.

    Raises:
        DataError: If it is absolute, climbs with "..", or holds a backslash or NUL.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise DataError(f"{archive}: unsafe member name {name!r}; nothing more is unpacked")
    return path


def _tar_members(path: Path) -> Iterator[Member]:
    with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as archive:
        for member in archive:
            if member.isdir():
                safe_name(member.name, path)
                continue
            if not member.isreg():
                raise DataError(f"{path}: member {member.name!r} is a link or device; refused")
            stream = archive.extractfile(member)
            if stream is not None:
                yield Member(member.name, stream, raw.tell())


def _zip_members(path: Path) -> Iterator[Member]:
    position = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{path}: member {entry.filename!r} is a link or device; refused")
            if entry.is_dir():
                safe_name(entry.filename, path)
                continue
            with archive.open(entry) as stream:
                position += entry.compress_size
                yield Member(entry.filename, stream, position)


def _write(stream: IO[bytes], target: Path, allowed: int, archive: Path) -> int:
    """Copy one member to a new file; returns its size in bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError:
        raise DataError(f"{archive}: two members are named {target.name!r}") from None
    written = 0
    with open(handle, "wb") as output:
        while block := stream.read(BLOCK):
            written += len(block)
            if written > allowed:
                raise DataError(f"{archive}: holds more data than expected; refused")
            output.write(block)
    return written


def unpack(archive: Path, target: Path, prefix: str = "", limits: Limits | None = None) -> int:
    """Unpack a tar (any compression) or zip.

    Args:
        archive: The file.
        target: Folder for the members; created.
        prefix: Members below it are unpacked, the others are checked and left.
        limits: Number and size of what may be unpacked.

    Returns:
        Files written.

    Raises:
        DataError: If the archive is damaged, empty below `prefix`, unsafe, or over the limits.
    """
    limits = limits or Limits()
    target.mkdir(parents=True, exist_ok=True)
    count = size = position = 0
    try:
        members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        total = archive.stat().st_size
        allowed = min(limits.size, limits.ratio * total)
        with closing(members), Progress(f"unpack {archive.name}", total, "byte") as progress:
            for member in members:
                name = safe_name(member.name, archive)
                progress.step(member.position - position)
                position = member.position
                if not name.as_posix().startswith(prefix):
                    continue
                if count >= limits.files:
                    raise DataError(f"{archive}: holds more than {limits.files} files; refused")
                size += _write(member.stream, target / name, allowed - size, archive)
                count += 1
    except (*DAMAGED, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    if count == 0:
        raise DataError(f"{archive}: holds no files below {prefix!r}")
    return count
