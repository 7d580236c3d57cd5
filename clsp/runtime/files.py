"""Files that are either whole under their final name or not there at all."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from clsp.runtime.canonical import sha256_text
from clsp.runtime.errors import DataError, IncompleteError

LOCKS = Path(".clsp") / "locks"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file through a sibling and a rename; the old content survives any interruption."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    payload = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is written.

    Raises:
        DataError: For every OSError inside, a full disk for example.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def staged(outputs: list[Path], home: Path, name: str) -> Iterator[dict[Path, Path]]:
    """Lend a private path for every output and move them all into place on success.

    Args:
        outputs: Final paths (files or folders), all below `home`.
        home: Folder of the artefact; the private folder lies inside it, so moves are renames.
        name: Distinguishes artefacts that share a home.

    Yields:
        Final path -> private path. Private parents exist; leftovers of a killed job are swept.

    Raises:
        DataError: If a promised output was not written, or nothing can be written there.
    """
    room = home / f".partial-{name}"
    try:
        if room.exists():
            shutil.rmtree(room)
        lent = {path: room / path.relative_to(home) for path in outputs}
        for private in lent.values():
            private.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{home}: cannot be written ({error.strerror})") from error
    try:
        yield lent
        absent = [str(final) for final, private in lent.items() if not private.exists()]
        if absent:
            raise DataError(f"the stage finished without writing {', '.join(absent)}")
        for final, private in lent.items():
            if final.is_dir():
                shutil.rmtree(final)
            final.parent.mkdir(parents=True, exist_ok=True)
            private.replace(final)
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Let one process at a time produce `target`; the kernel drops the lock when it dies.

    Raises:
        IncompleteError: If another process holds it.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = LOCKS / f"{sha256_text(str(Path(target).resolve()))[:24]}.lock"
    with open(lock, "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise IncompleteError(
                f"{target}: another process (pid {holder}) is producing it; "
                "wait for it or stop it, then start again"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
