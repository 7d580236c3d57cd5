"""Downloads one archive: https only, resumable, from several mirrors, checked before it is read.

The rules are those of audit.md 5. What a user has put into the downloads folder is checked like a
download and needs no network.
"""

import contextlib
import fcntl
import http.client
import logging
import os
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
    BeyondError,
    FailedError,
    RangeError,
    RefusedError,
    SlowError,
    ask,
    one_line,
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
    announced: bool = False  # whether the server said how many bytes there are
    failures: list[str] = field(default_factory=list)
    restarted: bool = False
    whole: int | None = None  # size of a part that is all that a server has

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

    def _check_offer(self, answer: Answer) -> None:
        known = self.decided or self.archive.size is not None
        if answer.encoding != "identity" and not known:  # some say "gzip" of any .tar.gz
            raise RefusedError(f"sends the file packed as {one_line(answer.encoding)!r}")
        offered = answer.end if answer.total is None else answer.total
        if offered is None:
            return
        if answer.total is not None and self.archive.size not in (None, answer.total):
            raise RefusedError(f"offers {answer.total} bytes, expected {self.archive.size}")
        if offered > self.most:
            raise RefusedError(f"offers {offered} bytes, more than the {self.most} allowed")
        free, needed = shutil.disk_usage(self.part.path.parent).free, offered - answer.start
        if free < needed:
            folder = self.part.path.parent
            raise DataError(f"{folder}: {free} bytes free, {needed} needed for {self.final.name}")

    def _store(self, url: str, answer: Answer, block: bytes) -> None:
        """Append the body, of which `block` is the beginning, to the part."""
        pace, size = Pace(self.patience), answer.start
        label = f"download {self.final.name}"
        total = answer.total or self.archive.size or answer.end
        most = self.most if total is None else total
        if not block and not total:
            raise RefusedError("sends an empty file")
        shown = Progress(label, total or 0, "B", size)
        with self.part.open(url, answer.validator, size) as target, shown as progress:
            while block:
                size += len(block)
                if size > most:
                    raise RefusedError(f"sends more than {most} bytes")
                self._write(target, block)
                progress.step(len(block))
                pace.add(len(block))
                block = answer.stream.read1(BLOCK)
        self.announced = total is not None
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
        self.restarted, self.whole = True, None
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
                self._check_offer(answer)
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

    def _is_whole(self, error: BeyondError, size: int) -> bool:
        """Whether a part after which the server has nothing may be the file."""
        if self.archive.size is not None or self.whole is not None:
            return False
        return error.total == size or (error.total is None and self.decided)

    def _from(self, url: str) -> Checked:
        """Get the file from one address, with another try where that may help."""
        self.restarted, self.whole, failed, best = False, None, 0, self.part.size()
        while True:
            start, validator = self._resume_from(url)
            if start:
                log.info("%s: continuing after %d bytes", url, start)
            try:
                if start == 0 or start not in (self.archive.size, self.whole):
                    self._receive(url, start, validator)
                return self._check(start)
            except RangeError as error:
                if isinstance(error, BeyondError) and self._is_whole(error, start):
                    self.whole, self.announced = start, error.total is not None
                else:
                    self._restart(str(error))
            except FailedError as error:
                grown = self.part.size() >= best + self.patience.step
                failed, best = 1 if grown else failed + 1, max(best, self.part.size())
                if failed >= self.patience.tries:
                    raise RefusedError(f"{error}, {failed} times in a row") from None
                self._wait(url, error, failed)

    def _wait(self, url: str, error: FailedError, failed: int) -> None:
        pause = min(error.wait or self.patience.pause * 2 ** (failed - 1), self.patience.longest)
        log.info("%s: %s; next try in %g s", url, one_line(str(error)), pause)
        self.patience.sleep(pause)

    def _check(self, start: int) -> Checked:
        """Check the whole part; bytes that are wrong are not kept.

        Raises:
            RangeError: If it is wrong and was put together from several answers.
            RefusedError: If it is wrong as it came.
            DataError: If the check itself failed; the part stays.
        """
        try:
            return check_file(self.part.path, self.archive)
        except pins.MismatchError as error:
            self.part.discard()
            raise (RangeError if start else RefusedError)(str(error)) from None

    def run(self) -> tuple[Checked, str]:
        """Try the addresses in order; returns what was found and where.

        Raises:
            DataError: Naming every address and why it failed.
        """
        waiting = [(url, False) for url in self.archive.urls]
        quick = self.patience
        while waiting:
            url, again = waiting.pop(0)
            # Slow is better than nothing once the others have failed; only silence ends it then.
            self.patience = replace(quick, rate=0.0) if again else quick
            try:
                return self._from(url), url
            except (RefusedError, SlowError) as error:
                self.failures.append(f"{url}: {one_line(str(error))}")
                log.info("%s: given up: %s", url, one_line(str(error)))
                if isinstance(error, SlowError) and not again:
                    waiting.append((url, True))
        told = [f"{self.final.name} could not be downloaded.", *self.failures]
        rest = by_hand(self.archive, self.final)
        if size := self.part.size():
            rest = f"{self.part.path} holds {size} bytes, which another run continues. {rest}"
        raise DataError("\n  ".join(told) + f"\n{rest}")


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
    """Let one process at a time get a file; two datasets may need the same archive at once.

    The lock lies beside the file, for runs in several working folders that share their downloads,
    and is removed in the end.
    """
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with _opened(lock) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("%s: another process is at it; waiting", path)
                fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel drops it when its holder dies
            if not _is(lock, stream):
                continue  # its holder has removed it meanwhile: it locks nothing any more
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _opened(lock: Path) -> IO[str]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return open(lock, "a+")
    except OSError as error:
        raise DataError(f"{lock.parent}: cannot be written ({error.strerror})") from error


def _is(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _pin(archive: Archive, checked: Checked, url: str) -> Checked:
    if checked.confirmed:
        return checked
    pins.pin_first(archive, checked.sha256, checked.md5, checked.size, url)
    return replace(checked, pinned=True)


def _local(archive: Archive, path: Path) -> Obtained:
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the archive itself; move it away")
    try:
        checked = check_file(path, archive)
    except pins.MismatchError as error:
        raise DataError(f"{error}. Move that file away and run again") from None
    return Obtained(path, LOCAL, _pin(archive, checked, LOCAL))


def obtain(archive: Archive, folder: Path | None = None, patience: Patience = PATIENCE) -> Obtained:
    """Get one archive into the downloads folder, or use the one that lies there.

    A file that the user has put there is checked like a download, without any network, and may lie
    in a folder that cannot be written. An interrupted download stays as NAME.part and is continued.

    Args:
        archive: What to get.
        folder: Where it belongs; None: the downloads folder. Created.
        patience: With the servers.

    Raises:
        DataError: If it cannot be downloaded, or is not the file that is expected.
    """
    folder = folder or downloads()
    path, part = folder / archive.name, Part(folder / f"{archive.name}.part")
    if path.exists():
        return _local(archive, path)
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
        download = _Download(archive, part, path, patience, decided)
        checked, url = download.run()
        if decided or archive.size is not None or download.announced:
            checked = _pin(
                archive, checked, url
            )  # else nobody can tell a whole file from a cut one
        part.keep_as(path)
        return Obtained(path, url, replace(checked, path=path))
