"""Downloads one archive: https only, resumable, from several mirrors, checked before it is read.

The rules are those of audit.md 5. What a user has put into the downloads folder is checked like a
download and needs no network.
"""

import contextlib
import fcntl
import http.client
import logging
import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, NamedTuple

from clsp.config.catalog import Archive
from clsp.data import pins
from clsp.data.checked import LOCAL, Checked, by_hand, check_file, downloads
from clsp.data.partial import Part
from clsp.data.patience import PATIENCE, Pace, Patience
from clsp.data.request import (
    SNIFFED,
    Answer,
    FailedError,
    RangeError,
    RefusedError,
    SlowError,
    ask,
    refuse_page,
)
from clsp.runtime.errors import DataError
from clsp.runtime.progress import Progress

BLOCK = 1 << 20
LARGEST = 16 << 30  # bytes, where the size of an archive is not known

log = logging.getLogger(__name__)


@dataclass
class _Download:
    """One archive on its way here: what has been tried, and why it failed."""

    archive: Archive
    part: Part
    final: Path
    patience: Patience
    decided: bool  # whether a digest tells in the end if the bytes are right
    failures: list[str] = field(default_factory=list)
    restarted: bool = False

    @property
    def most(self) -> int:
        """Bytes that are taken at most."""
        return self.archive.size or LARGEST

    def _resume_from(self, url: str) -> tuple[int, str | None]:
        """Bytes to continue after, and the validator to ask with."""
        size, validator = self.part.size(), self.part.validator(url)
        if size > self.most or (validator is None and not self.decided):
            return 0, None
        return size, validator

    def _check_total(self, answer: Answer) -> None:
        if answer.total is None:
            return
        if self.archive.size is not None and answer.total != self.archive.size:
            raise RefusedError(f"offers {answer.total} bytes, expected {self.archive.size}")
        if answer.total > self.most:
            raise RefusedError(f"offers {answer.total} bytes, more than the {self.most} allowed")
        free, needed = shutil.disk_usage(self.part.path.parent).free, answer.total - answer.start
        if free < needed:
            folder = self.part.path.parent
            raise DataError(f"{folder}: {free} bytes free, {needed} needed for {self.final.name}")

    def _store(self, url: str, answer: Answer, block: bytes) -> None:
        """Append the body, of which `block` is the beginning, to the part."""
        pace, size = Pace(self.patience), answer.start
        label = f"download {self.final.name}"
        shown = Progress(label, answer.total or self.archive.size or 0, "B", size)
        with self.part.open(url, answer.validator, size) as target, shown as progress:
            while block:
                size += len(block)
                if size > self.most:
                    raise RefusedError(f"sends more than {self.most} bytes")
                self._write(target, block)
                progress.step(len(block))
                pace.add(len(block))
                block = answer.stream.read1(BLOCK)
        total = answer.total or self.archive.size
        if total is not None and size < total:
            raise FailedError(f"the connection ended after {size} of {total} bytes")

    def _write(self, target: IO[bytes], block: bytes) -> None:
        try:
            target.write(block)
            target.flush()
        except OSError as error:  # of the disk, so no reason to ask another server
            raise DataError(f"{self.part.path}: cannot be written ({error.strerror})") from error

    def _restart(self, reason: str) -> None:
        """Forget the part; an address may make us do so once.

        Raises:
            RefusedError: At the second time.
        """
        if self.restarted:
            raise RefusedError(f"{reason}, after a new start")
        self.restarted = True
        self.part.discard()
        log.info("%s: %s; starting anew", self.final.name, reason)

    def _receive(self, url: str, start: int, validator: str | None) -> None:
        """One request, and what it brings."""
        limits = (self.archive.hosts, self.patience.schemes, self.patience.timeout)
        try:
            answer = ask(url, *limits, start, validator)
            with answer.stream:
                first = answer.stream.read1(SNIFFED)
                refuse_page(answer.kind, b"" if answer.start else first)
                self._check_total(answer)
                if start and validator and answer.validator != validator:
                    if answer.start:
                        raise RangeError("continues another file than it began")
                    self._restart("the server has another file by now")
                self._store(url, answer, first)
        except (OSError, http.client.HTTPException) as error:  # URLError, time-outs, resets
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise RefusedError(f"its certificate is not valid ({cause})") from error
            if isinstance(cause, TimeoutError):
                raise SlowError(f"sent nothing for {self.patience.timeout:g} s") from error
            raise FailedError(str(error) or type(error).__name__) from error

    def _from(self, url: str) -> Checked:
        """Get the file from one address, with another try where that may help."""
        self.restarted, failed, best = False, 0, self.part.size()
        while True:
            start, validator = self._resume_from(url)
            if start:
                log.info("%s: continuing after %d bytes", url, start)
            try:
                if start != self.archive.size:
                    self._receive(url, start, validator)
                return self._check(start)
            except RangeError as error:
                self._restart(str(error))
            except FailedError as error:
                grown = self.part.size() >= best + self.patience.step
                failed, best = 1 if grown else failed + 1, max(best, self.part.size())
                if failed >= self.patience.tries:
                    raise RefusedError(f"{error}, {failed} times in a row") from None
                self._wait(url, error, failed)

    def _wait(self, url: str, error: FailedError, failed: int) -> None:
        pause = min(error.wait or self.patience.pause * 2 ** (failed - 1), self.patience.longest)
        log.info("%s: %s; next try in %g s", url, error, pause)
        self.patience.sleep(pause)

    def _check(self, start: int) -> Checked:
        """Check the whole part; bytes that are wrong are not kept.

        Raises:
            RangeError: If it is wrong and was put together from several answers.
            RefusedError: If it is wrong as it came.
        """
        try:
            return check_file(self.part.path, self.archive)
        except DataError as error:
            self.part.discard()
            raise (RangeError if start else RefusedError)(str(error)) from None

    def run(self) -> tuple[Checked, str]:
        """Try the addresses in order; returns what was found and where.

        Raises:
            DataError: Naming every address and why it failed.
        """
        waiting = [(url, False) for url in self.archive.urls]
        while waiting:
            url, again = waiting.pop(0)
            try:
                return self._from(url), url
            except (RefusedError, SlowError) as error:
                self.failures.append(f"{url}: {error}")
                log.info("%s: given up: %s", url, error)
                if isinstance(error, SlowError) and not again:
                    waiting.append((url, True))  # better than nothing, once the others have failed
        raise DataError(
            f"{self.final.name} could not be downloaded.\n  "
            + "\n  ".join(self.failures)
            + f"\n{by_hand(self.archive, self.final)}"
        )


class Obtained(NamedTuple):
    """An archive that is here and is the right one.

    Attributes:
        path: The file.
        url: Where it was downloaded just now; "local" if it was here already.
        checked: What the checks found.
    """

    path: Path
    url: str
    checked: Checked


@contextlib.contextmanager
def _in_turn(path: Path) -> Iterator[None]:
    """Let one process at a time get a file; two datasets may need the same archive at once."""
    with open(path.with_name(f".{path.name}.lock"), "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process is at it; waiting", path)
            fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel drops it when its holder dies
        yield


def _pin(archive: Archive, checked: Checked, url: str) -> None:
    if not checked.confirmed:
        pins.pin_first(archive, checked.sha256, checked.md5, checked.size, url)


def _local(archive: Archive, path: Path) -> Obtained:
    try:
        checked = check_file(path, archive)
    except DataError as error:
        raise DataError(f"{error}. Delete that file and run again") from None
    _pin(archive, checked, LOCAL)
    return Obtained(path, LOCAL, checked)


def obtain(archive: Archive, folder: Path | None = None, patience: Patience = PATIENCE) -> Obtained:
    """Get one archive into the downloads folder, or use the one that lies there.

    A file that the user has put there is checked like a download, without any network. An
    interrupted download stays as NAME.part and is continued.

    Args:
        archive: What to get.
        folder: Where it belongs; None: the downloads folder. Created.
        patience: With the servers.

    Raises:
        DataError: If it cannot be downloaded, or is not the file that is expected.
    """
    folder = folder or downloads()
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / archive.name, Part(folder / f"{archive.name}.part")
    with _in_turn(path):
        if path.exists():
            return _local(archive, path)
        if not archive.urls:
            raise DataError(
                f"{path}: no such file, and no address to download it from. "
                f"{by_hand(archive, path)}"
            )
        pin = pins.pinned(archive)  # first: a damaged lock file must not cost a download
        decided = bool(archive.sha256 or archive.md5 or pin)
        checked, url = _Download(archive, part, path, patience, decided).run()
        _pin(archive, checked, url)
        part.keep_as(path)
        return Obtained(path, url, replace(checked, path=path))
