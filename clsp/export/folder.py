"""A folder that is either whole under its final name or not there, as write_atomic is for files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clsp.runtime.errors import DataError
from clsp.runtime.files import exclusive


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """Lend an empty folder and put it in the place of `final` on success.

    The folder that was there is moved aside in one step, not emptied in place, so that whoever is
    killed here leaves the old one, the new one or none. Leftovers are swept by the next call.

    Raises:
        DataError: If nothing can be written there, or `final` is no folder.
        IncompleteError: If another process is writing it.
    """
    fresh, old = (final.with_name(f".{kind}-{final.name}") for kind in ("partial", "old"))
    with exclusive(final):
        try:
            for left in (fresh, old):
                if left.exists():
                    shutil.rmtree(left)
            fresh.mkdir(parents=True)
            if final.exists() and not final.is_dir():
                raise DataError(f"{final}: expected a folder or nothing, found a file")
            yield fresh
            if final.exists():
                final.replace(old)
            fresh.replace(final)
        except OSError as error:
            raise DataError(f"{final}: cannot be written ({error.strerror or error})") from error
        finally:
            for left in (fresh, old):
                shutil.rmtree(left, ignore_errors=True)
