"""The unfinished part of a download, and what tells whether the rest still belongs to it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clsp.config.strict import Strict
from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic


class _Origin(Strict):
    """Where the bytes of a part came from."""

    url: str
    validator: str | None = None


@dataclass(frozen=True)
class Part:
    """NAME.part in the downloads folder, with NAME.part.json beside it."""

    path: Path

    @property
    def record(self) -> Path:
        """Where its origin is written down."""
        return self.path.with_name(f"{self.path.name}.json")

    def size(self) -> int:
        """Bytes that are here already."""
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """What If-Range may say to this address; None where the bytes are not known to be its."""
        try:
            origin = _Origin.model_validate(parse_json(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no record, or one that is damaged: as good as none
            return None
        return origin.validator if origin.url == url else None

    def open(self, url: str, validator: str | None, start: int) -> IO[bytes]:
        """Open for what follows after `start` bytes, and write the origin down first.

        Raises:
            DataError: If that cannot be written.
        """
        with self._writing():
            if start == 0:
                self.path.unlink(missing_ok=True)
                write_atomic(
                    self.record, canonical_json(_Origin(url=url, validator=validator).canonical())
                )
            elif self.validator(url) != validator:
                self.record.unlink(missing_ok=True)  # of two origins: only a digest can tell
            return open(self.path, "ab")

    def discard(self) -> None:
        """Forget what is here."""
        with self._writing():
            self.path.unlink(missing_ok=True)
            self.record.unlink(missing_ok=True)

    def keep_as(self, path: Path) -> None:
        """Give the finished file its name."""
        with self._writing():
            self.path.replace(path)
            self.record.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep errors of the disk from being taken for errors of the network."""
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from error
