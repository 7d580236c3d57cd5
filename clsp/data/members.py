"""The expected list of an archive: which members are wanted, how many and how large."""

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from clsp.config.catalog import Members
from clsp.runtime.errors import DataError

SHOWN = 3  # left-out members that a record names
SURROGATE = re.compile("[\ud800-\udfff]")  # stands for a byte that is not UTF-8


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    members: int = 2_000_000  # wanted or not
    files: int = 1_000_000  # wanted
    size: int = 128 << 30  # bytes of all members together
    ratio: int = 200  # bytes per byte of the archive; photos are near 1, bombs above 1000
    spare: int = 1 << 20  # bytes that even the smallest archive may hold


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: How many were written.
        size: Their bytes.
        by_pattern: How many of them each pattern of the expected list gave.
        left_out: Members that are not on the list.
        examples: Names of a few of those.
    """

    files: int
    size: int
    by_pattern: dict[str, int]
    left_out: int
    examples: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "files": self.files,
            "unpacked_size": self.size,
            "members": self.by_pattern,
            "left_out": self.left_out,
            "left_out_examples": list(self.examples),
        }


def safe_name(name: str, archive: Path, folder: bool = False) -> PurePosixPath:
    """Normalise a member's name.

    Args:
        name: As the archive gives it.
        archive: For the message.
        folder: Whether it names a folder, which may be "." too.

    Raises:
        DataError: If it is absolute, climbs with "..", names nothing, or holds a backslash or a
            control character.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or any(ord(letter) < ord(" ") for letter in name)
    empty = not path.parts and not folder
    if path.is_absolute() or ".." in path.parts or odd or empty:
        raise DataError(f"{archive}: unsafe member name {name!r}; nothing is unpacked")
    return path


def expression(pattern: str) -> re.Pattern[str]:
    """A member pattern as a regular expression."""
    parts = {"**": ".*", "*": "[^/]*"}
    return re.compile(
        "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern))
    )


@dataclass
class Expected:
    """Judges the members of one archive as they come, in the order of the archive.

    Attributes:
        archive: For messages.
        members: The expected list; empty: every regular file is wanted.
        limits: Of number and size.
    """

    archive: Path
    members: Sequence[Members]
    limits: Limits
    seen: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    met: int = 0
    left_out: int = 0
    claimed: int = 0  # bytes, by the archive's own account
    written: int = 0

    def __post_init__(self) -> None:
        """Compile the patterns and fix how many bytes the archive may hold."""
        self.members = list(self.members) or [Members(pattern="**")]
        self.expressions = [(m, expression(m.pattern)) for m in self.members]
        self.counts = {m.pattern: 0 for m in self.members}
        allowed = self.limits.ratio * self.archive.stat().st_size
        self.allowed = min(self.limits.size, max(allowed, self.limits.spare))

    def _refuse(self, what: str) -> DataError:
        return DataError(f"{self.archive}: {what}; nothing is unpacked")

    def _match(self, name: str) -> Members | None:
        return next((m for m, wanted in self.expressions if wanted.fullmatch(name)), None)

    def _meet(self) -> None:
        self.met += 1
        if self.met > self.limits.members:
            raise self._refuse(f"holds more than {self.limits.members} members")

    def pass_folder(self, name: str) -> None:
        """Count a folder, which is not made for its own sake, and judge its name.

        Raises:
            DataError: If the name is unsafe, or there are too many members.
        """
        safe_name(name, self.archive, folder=True)
        self._meet()

    def want(self, name: str, regular: bool, size: int) -> PurePosixPath | None:
        """Where a member goes, or None if it is not on the list.

        Args:
            name: As the archive gives it.
            regular: Whether it is a regular file; for folders see `pass_folder`.
            size: Bytes that the archive claims for it.

        Raises:
            DataError: If the name is unsafe, a wanted member is a link or device or comes twice,
                or there are too many members or too much data.
        """
        path = safe_name(name, self.archive)
        self._meet()
        self.claimed += max(size, 0)
        if self.claimed > self.allowed:
            raise self._refuse(f"holds more data than expected, over {self.allowed} bytes")
        listed = self._match(path.as_posix())
        if listed is None:
            self.left_out += 1
            if len(self.examples) < SHOWN:
                self.examples.append(path.as_posix().encode(errors="backslashreplace").decode())
            return None
        if not regular:
            raise self._refuse(f"member {name!r} is a link or device")
        if SURROGATE.search(name):
            raise self._refuse(f"member {name!r} has a name that is not UTF-8")
        self._count(listed, path.as_posix())
        return path

    def _count(self, listed: Members, name: str) -> None:
        if name in self.seen:
            raise self._refuse(f"two members are named {name!r}")
        self.seen.add(name)
        self.counts[listed.pattern] += 1
        most = listed.count or listed.most or self.limits.files
        if self.counts[listed.pattern] > most:
            raise self._refuse(f"holds more than {most} files {listed.pattern!r}")
        if len(self.seen) > self.limits.files:
            raise self._refuse(f"holds more than {self.limits.files} files")

    def write(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            DataError: If they are more than the archive may hold.
        """
        self.written += size
        if self.written > self.allowed:
            raise self._refuse(f"holds more data than expected, over {self.allowed} bytes")

    def finish(self) -> Unpacked:
        """Compare with the expected list once the archive has ended.

        Raises:
            DataError: If files of the list are missing.
        """
        for listed in self.members:
            found = self.counts[listed.pattern]
            if listed.count is not None and found != listed.count:
                raise self._refuse(
                    f"holds {found} files {listed.pattern!r}, expected {listed.count}"
                )
            if found == 0:
                raise self._refuse(f"holds no files {listed.pattern!r}")
        return Unpacked(
            len(self.seen), self.written, self.counts, self.left_out, tuple(self.examples)
        )


def is_regular(mode: int) -> bool:
    """Whether the Unix mode of a zip's member says regular file, or says nothing."""
    return stat.S_IFMT(mode) in (0, stat.S_IFREG)
