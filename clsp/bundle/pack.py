"""Writes the archive, so that equal files give equal bytes.

Members stand in the order of their names and have one fixed date.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from clsp.bundle.layout import MANIFEST, Member, Part
from clsp.runtime.canonical import canonical_json
from clsp.runtime.progress import BYTES, Progress

Source = Path | bytes
BLOCK = 1 << 20
DATE = (1980, 1, 1, 0, 0, 0)  # the first that zip archives know
FILE_MODE = 0o100644 << 16
UNIX = 3
# Made smaller; of arrays, weights and pictures a tenth at most could be saved.
TEXT = (".json", ".jsonl", ".csv", ".md", ".tex", ".html", ".txt", ".bib", ".yaml")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, DATE)
    entry.create_system, entry.external_attr = UNIX, FILE_MODE
    small = name.lower().endswith(TEXT)
    entry.compress_type = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
    return entry


def _put(archive: zipfile.ZipFile, name: str, source: Source) -> Member:
    """Add one member, hashing what is written."""
    digest, size = hashlib.sha256(), 0
    large = isinstance(source, Path) and source.stat().st_size >= 1 << 31
    with archive.open(_entry(name), "w", force_zip64=large) as target:
        if isinstance(source, bytes):
            digest.update(source)
            target.write(source)
            return Member(name, len(source), digest.hexdigest())
        with open(source, "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
                target.write(block)
                size += len(block)
    return Member(name, size, digest.hexdigest())


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_archive(
    stream: IO[bytes],
    files: Mapping[str, Source],
    parts: Mapping[str, Part],
    record: dict[str, Any],
) -> list[Member]:
    """Write all members and, last, the manifest.

    Args:
        stream: The archive, open for writing and seeking.
        files: Name -> where it lies, or its bytes; those of `parts` among them.
        parts: Name -> where its bytes stand already.
        record: What the manifest says besides `files`.

    Returns:
        Every file, in the order of names.

    Raises:
        OSError: If a file cannot be read, or the archive cannot be written.
    """
    total = sum(s.stat().st_size if isinstance(s, Path) else len(s) for s in files.values())
    members = []
    with (
        zipfile.ZipFile(stream, "w", allowZip64=True) as archive,
        Progress("pack", total, BYTES) as progress,
    ):
        for name in sorted(files):
            source = files[name]
            if name in parts and isinstance(source, Path):
                member = Member(name, source.stat().st_size, sha256_of(source), parts[name])
            else:
                member = _put(archive, name, source)
            members.append(member)
            progress.step(member.size)
        told = {**record, "files": [member.record() for member in members]}
        _put(archive, MANIFEST, (canonical_json(told) + "\n").encode())
    return members


def room_for(path: Path, files: Mapping[str, Source]) -> int:
    """Bytes that are missing on the disk for an archive of these files, or 0."""
    total = sum(s.stat().st_size if isinstance(s, Path) else len(s) for s in files.values())
    return max(0, total - shutil.disk_usage(path.parent).free)
