"""The lock file of archives whose sha256 nobody published: the first good download fixes it.

Where the catalogue knows a sha256, that decides and nothing is pinned. Else the first file that
fits whatever is known (size, the publisher's md5) is written down in datasets.lock.json, and any
other file of that name is refused from then on. Track the file with git to share the pins.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.config.catalog import Archive, Md5, Sha256
from clsp.config.strict import NonNegativeInt, Strict, Text
from clsp.runtime.canonical import parse_json
from clsp.runtime.errors import DataError
from clsp.runtime.files import LOCKS, write_atomic

LOCK = Path("datasets.lock.json")
SCHEMA = 1


class MismatchError(DataError):
    """A file has another size or digest than it should."""


class Pin(Strict):
    """What the first good download of an archive was."""

    sha256: Sha256
    md5: Md5
    size: NonNegativeInt
    fitted: tuple[Text, ...]  # what the publisher's facts confirmed: size, md5
    url: Text  # where it came from, or "local"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process writes the lock file."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with open(LOCKS / "datasets.lock", "a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released with the file
        yield


def _read(lock: Path) -> dict[str, Pin]:
    if not lock.exists():
        return {}
    try:
        content: Any = parse_json(lock.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA:
            raise ValueError(f"schema_version {content['schema_version']!r}, expected {SCHEMA}")
        return {name: Pin.model_validate(pin) for name, pin in content["archives"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{lock}: not a lock file of this suite ({reason})") from error


def pinned(archive: Archive, lock: Path | None = None) -> Pin | None:
    """The pin of an archive, if it has one.

    Raises:
        DataError: If the lock file is malformed.
    """
    return _read(lock or LOCK).get(archive.name)


def compare(path: Path, archive: Archive, sha256: str, lock: Path | None = None) -> bool:
    """Compare a file's sha256 with the pin of its archive.

    Returns:
        Whether there is a pin.

    Raises:
        MismatchError: If it differs from the pin.
        DataError: If the lock file is malformed.
    """
    pin = pinned(archive, lock)
    if pin is not None and pin.sha256 != sha256:
        raise MismatchError(
            f"{path}: sha256 is {sha256}, but {lock or LOCK} pins {pin.sha256}, the first "
            f"download ({pin.url}); if the publisher has replaced the file and you want the new "
            f'one, delete the entry "{archive.name}" there'
        )
    return pin is not None


def pin_first(
    archive: Archive, sha256: str, md5: str, size: int, url: str, lock: Path | None = None
) -> None:
    """Pin an archive that has no pin yet; several processes may try at once.

    Raises:
        DataError: If another process has pinned other bytes meanwhile, or nothing can be written.
    """
    lock = lock or LOCK
    fitted = tuple(name for name in ("size", "md5") if getattr(archive, name) is not None)
    with _alone():
        pins = _read(lock)
        first = pins.setdefault(
            archive.name, Pin(sha256=sha256, md5=md5, size=size, fitted=fitted, url=url)
        )
        if first.sha256 != sha256:
            raise DataError(
                f"{archive.name}: sha256 is {sha256}, but {lock} pins {first.sha256} since another "
                "process downloaded it"
            )
        archives = {name: pins[name].canonical() for name in sorted(pins)}
        content = {"schema_version": SCHEMA, "archives": archives}
        write_atomic(lock, json.dumps(content, indent=2) + "\n")
