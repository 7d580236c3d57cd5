"""Unpacks an archive without trusting it (audit.md 5).

Only regular files on the expected list, only below the target, never through a link, never over an
existing file, and within limits. Files are written here, by no library's extract call, into a
private folder that gets the final name when everything is there.
"""

import contextlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clsp.config.catalog import Members
from clsp.data.members import Expected, Limits, Unpacked, is_regular
from clsp.runtime.errors import DataError
from clsp.runtime.progress import Progress

BLOCK = 1 << 20
FILE_MODE, FOLDER_MODE = 0o644, 0o755
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)  # sparse files can claim any size
# What a reader raises for a damaged archive; OSError covers gzip's own.
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
    NotImplementedError, ValueError, OSError,
)  # fmt: skip
EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
LONGEST_HEADER = 64 << 10  # bytes; a long name takes a few hundred


@dataclass
class Member:
    """One member; `position` tells how far into the archive we are."""

    name: str
    folder: bool
    regular: bool
    size: int
    position: int
    open: Callable[[], IO[bytes] | None]


class _Header(tarfile.TarInfo):
    """A header that does not take more memory than a name needs.

    tarfile reads pax headers, long names and the maps of sparse files whole, whatever size they
    claim; a few compressed megabytes may claim gigabytes.
    """

    def _proc_member(self, archive: Any) -> Any:
        if self.type in EXTENDED:
            # What global headers say stays in memory for all members, so they count together.
            kept = getattr(archive, "kept", 0) + self.size
            if self.type == tarfile.XGLTYPE:
                archive.kept = kept
            else:
                kept = self.size
            if not 0 <= kept <= LONGEST_HEADER:
                raise tarfile.ReadError(
                    f"an extended header of {kept} bytes, more than the {LONGEST_HEADER} allowed"
                )
        return super()._proc_member(archive)

    def _proc_sparse(self, archive: Any) -> Any:
        raise tarfile.ReadError(f"member {self.name!r} is a sparse file")

    def _proc_gnusparse_10(self, following: Any, headers: Any, archive: Any) -> Any:
        raise tarfile.ReadError(f"member {following.name!r} is a sparse file")


def _tar_members(raw: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=raw, mode="r|*", tarinfo=_Header) as archive:
        for entry in archive:
            regular, data = entry.type in REGULAR, partial(archive.extractfile, entry)
            yield Member(entry.name, entry.isdir(), regular, entry.size, raw.tell(), data)
            archive.members = []  # else it remembers every member that it has met


def _zip_members(raw: IO[bytes]) -> Iterator[Member]:
    position = 0
    with zipfile.ZipFile(raw) as archive:
        for entry in archive.infolist():
            position += entry.compress_size
            folder = entry.filename.endswith("/")
            regular, data = is_regular(entry.external_attr >> 16), partial(archive.open, entry)
            yield Member(entry.filename, folder, regular, entry.file_size, position, data)


@contextlib.contextmanager
def _writing(target: Path, why: str) -> Iterator[None]:
    """Tell errors of the disk from those of the archive."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}) {why}") from error


def _make_folder(folder: Path, home: Path) -> None:
    """Create a folder below `home`, level by level, each with the fixed mode."""
    if folder == home or folder.is_dir():
        return
    _make_folder(folder.parent, home)
    folder.mkdir()
    folder.chmod(FOLDER_MODE)


def _create(target: Path, expected: Expected) -> IO[bytes]:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        handle = os.open(target, flags, FILE_MODE)
    except FileExistsError:
        raise DataError(f"{expected.archive}: {target.name!r} is there already") from None
    os.fchmod(handle, FILE_MODE)
    return open(handle, "wb", buffering=0)  # unbuffered: a full disk shows at the write


def _write(stream: IO[bytes], target: Path, expected: Expected) -> None:
    why = f"while {expected.archive} is unpacked"
    with _writing(target, why):
        output = _create(target, expected)
    with output:
        while block := stream.read(BLOCK):
            expected.write(len(block))
            rest = memoryview(block)
            while rest:
                with _writing(target, why):
                    rest = rest[output.write(rest) :]


def _take(member: Member, path: PurePosixPath, folder: Path, expected: Expected) -> None:
    target = folder / path
    try:
        _make_folder(target.parent, folder)
    except (FileExistsError, NotADirectoryError):
        raise DataError(
            f"{expected.archive}: cannot be unpacked ({path.parent} is a file and a folder)"
        ) from None
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be written ({error.strerror})") from error
    stream = member.open()
    if stream is None:
        raise DataError(f"{expected.archive}: member {member.name!r} has no data")
    with stream:
        _write(stream, target, expected)


def write_members(
    archive: Path, folder: Path, members: Sequence[Members] = (), limits: Limits | None = None
) -> Unpacked:
    """Write the wanted members of a tar (any compression) or zip into a folder.

    Whatever goes wrong leaves files behind: the folder has to be a private one, see `whole`.

    Args:
        archive: The file.
        folder: Where to; created. No member may be there yet.
        members: The expected list; empty: all regular files.
        limits: Number and size of what may be unpacked.

    Raises:
        DataError: If the archive is damaged or unsafe, is over the limits, or does not hold what
            is expected.
    """
    with _writing(folder, f"while {archive} is unpacked"):
        folder.mkdir(parents=True, exist_ok=True)
    total, position = archive.stat().st_size, 0
    expected = Expected(archive, members, limits or Limits())
    try:
        with open(archive, "rb") as raw, Progress(f"unpack {archive.name}", total, "B") as shown:
            zipped = zipfile.is_zipfile(raw)
            raw.seek(0)
            with closing(_zip_members(raw) if zipped else _tar_members(raw)) as found:
                for member in found:
                    if member.folder:
                        expected.pass_folder(member.name)
                    elif path := expected.want(member.name, member.regular, member.size):
                        _take(member, path, folder, expected)
                    shown.step(member.position - position)
                    position = member.position
    except DAMAGED as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    return expected.finish()


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Lend a private folder beside `target` that becomes `target` when the block ends well.

    Raises:
        DataError: If `target` exists and is not an empty folder.
    """
    if target.is_symlink() or (target.exists() and (target.is_file() or any(target.iterdir()))):
        raise DataError(f"{target}: is there already; delete it first")
    room = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(room, ignore_errors=True)
    with _writing(room, "as a private folder"):
        room.mkdir(parents=True)
        room.chmod(FOLDER_MODE)
    try:
        yield room
        with _writing(target, "though everything is unpacked"):
            if target.exists():
                target.rmdir()
            room.replace(target)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def unpack(
    archive: Path, target: Path, members: Sequence[Members] = (), limits: Limits | None = None
) -> Unpacked:
    """Unpack one archive into a new folder: all that is wanted, or nothing at all.

    Raises:
        DataError: As `write_members`, or if `target` is there already.
    """
    with whole(target) as room:
        return write_members(archive, room, members, limits)
