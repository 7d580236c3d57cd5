"""Checks a file against what is known of an archive, and says where a user may put one."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsp.config.catalog import FILE as CATALOGUE
from clsp.config.catalog import Archive
from clsp.data import pins
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.progress import Progress

BLOCK = 1 << 20
VARIABLE = "CLSP_DOWNLOADS"
FOLDER = Path("downloads")
LOCAL = "local"  # where a file came from that was there already


def downloads() -> Path:
    """The folder of archives: $CLSP_DOWNLOADS, else `downloads` where the suite is started."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


@dataclass(frozen=True)
class Checked:
    """A file that is the expected one, as far as anybody can tell.

    Attributes:
        path: Where it is.
        size: In bytes.
        sha256: Of all of it.
        md5: Of all of it.
        confirmed: Whether a published sha256 proves it.
        identity: Device, inode, size and time of change of what was read.
        pinned: Whether its sha256 is in the lock file, for want of a published one.
    """

    path: Path
    size: int
    sha256: str
    md5: str
    confirmed: bool
    identity: tuple[int, int, int, int]
    pinned: bool = False

    def still_there(self) -> None:
        """Make sure that nobody has put another file in its place since.

        Raises:
            DataError: If somebody has.
        """
        if _identity(self.path.stat()) != self.identity:
            raise DataError(f"{self.path}: has changed since it was checked; run again")

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "size": self.size,
            "sha256": self.sha256,
            "md5": self.md5,
            "confirmed": self.confirmed,
            "pinned": self.pinned,
        }


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_file(path: Path, archive: Archive) -> Checked:
    """Compare a file with what is known of the archive: size, digests, and else its pin.

    Raises:
        MismatchError: If something differs.
        ConfigError: If the sha256 fits and the md5 does not: they are not of one file.
        DataError: If it cannot be read, or the lock file of pins cannot.
    """
    try:
        return _check(path, archive)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _check(path: Path, archive: Archive) -> Checked:
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        if archive.size is not None and status.st_size != archive.size:
            raise pins.MismatchError(f"{path}: {status.st_size} bytes, expected {archive.size}")
        digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
        with Progress(f"check {path.name}", status.st_size, "B") as progress:
            while block := stream.read(BLOCK):
                for digest in digests.values():
                    digest.update(block)
                progress.step(len(block))
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    confirmed = archive.sha256 is not None
    for name, value in found.items():
        expected = getattr(archive, name)
        if expected is None or value == expected:
            continue
        if name == "md5" and confirmed:  # the sha256 fits: it is the file, and the entry is wrong
            raise ConfigError(
                f"{CATALOGUE}: {archive.name}.md5: expected {value}, the digest of the file with "
                f"the sha256 that stands beside it, found {expected}"
            )
        raise pins.MismatchError(f"{path}: {name} is {value}, expected {expected}")
    if not confirmed:
        pins.compare(path, archive, found["sha256"])
    return Checked(path, status.st_size, **found, confirmed=confirmed, identity=_identity(status))


def by_hand(archive: Archive, path: Path) -> str:
    """What a user can do without the suite's download."""
    known = (("bytes", archive.size), ("sha256", archive.sha256), ("md5", archive.md5))
    facts = ", ".join(f"{name} {value}" for name, value in known if value is not None)
    told = f" {archive.manual.rstrip('.')}." if archive.manual else ""
    return (
        f"A file fetched by hand belongs at {path} ({facts or 'nothing is known of it'}); it is "
        f"checked and used without a network.{told}"
    )
