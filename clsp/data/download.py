"""Downloads one archive: https only, resumable, checked before anybody reads it (audit.md 5)."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterable
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from clsp.data.catalog import Archive
from clsp.runtime.errors import DataError
from clsp.runtime.files import exclusive
from clsp.runtime.progress import Progress

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
LARGEST = 16 << 30  # bytes, where the size of an archive is not known
OK, PARTIAL = 200, 206

log = logging.getLogger(__name__)


def _check_url(url: str, hosts: Iterable[str], schemes: Iterable[str]) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in schemes:
        raise DataError(f"{url}: only {', '.join(schemes)} addresses are fetched")
    if not any(host == known or host.endswith(f".{known}") for known in hosts):
        raise DataError(f"{url}: host {host!r} is not among {', '.join(hosts)}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that would have been accepted itself."""

    def __init__(self, hosts: Iterable[str], schemes: Iterable[str]) -> None:
        self.hosts, self.schemes = hosts, schemes

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Check the new address before it is asked."""
        _check_url(newurl, self.hosts, self.schemes)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_file(path: Path, archive: Archive) -> str:
    """Compare a file with what is known of the archive.

    Returns:
        Its sha256, computed whether or not one is known.

    Raises:
        DataError: If size or a digest differs.
    """
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise DataError(f"{path}: {size} bytes, expected {archive.size}")
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with open(path, "rb") as stream, Progress(f"check {path.name}", size, "byte") as progress:
        while block := stream.read(BLOCK):
            for digest in digests.values():
                digest.update(block)
            progress.step(len(block))
    for name, expected in (("sha256", archive.sha256), ("md5", archive.md5)):
        found = digests[name].hexdigest()
        if expected is not None and found != expected:
            raise DataError(f"{path}: {name} is {found}, expected {expected}")
    return digests["sha256"].hexdigest()


def _receive(response: Any, part: Path, archive: Archive, start: int) -> None:
    """Append a response to the partial file; a server that ignores the range starts it anew."""
    if response.status == PARTIAL:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {start}-"):
            raise DataError(f"{archive.url}: asked for bytes from {start}, got {given!r}")
    else:
        start = 0
    most = archive.size or LARGEST
    label = f"download {archive.name}"
    shown = Progress(label, archive.size or 0, "byte", start)
    with open(part, "ab" if start else "wb") as stream, shown as progress:
        while block := response.read(BLOCK):
            start += len(block)
            if start > most:
                raise DataError(f"{archive.url}: sends more than {most} bytes; stopped")
            stream.write(block)
            progress.step(len(block))


def _fetch(archive: Archive, part: Path, schemes: tuple[str, ...]) -> None:
    _check_url(archive.url, archive.hosts, schemes)
    start = part.stat().st_size if part.exists() else 0
    if archive.size is not None and start == archive.size:
        return  # complete but not yet checked
    if archive.size is not None and start > archive.size:
        start = 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "clsp"})  # noqa: S310
    if start:
        request.add_header("Range", f"bytes={start}-")
        log.info("%s: continuing after %d bytes", archive.url, start)
    opener = urllib.request.build_opener(_Redirects(archive.hosts, schemes))
    with opener.open(request, timeout=TIMEOUT) as response:
        if response.status not in (OK, PARTIAL):
            raise DataError(f"{archive.url}: answered with status {response.status}")
        _receive(response, part, archive, start)
    size = part.stat().st_size
    if archive.size is not None and size < archive.size:
        raise DataError(
            f"{archive.url}: the connection ended after {size} of {archive.size} bytes; "
            "run again to continue from there"
        )


def obtain(
    archive: Archive, folder: Path, schemes: tuple[str, ...] = ("https",)
) -> tuple[Path, str]:
    """Get one archive into a cache folder, or use the one that lies there.

    A file that the user has put there is checked like a download. An interrupted download stays as
    NAME.part and is continued.

    Args:
        archive: What to get.
        folder: The cache; created.
        schemes: Accepted address schemes; only tests widen them.

    Returns:
        Path of the checked file and its sha256.

    Raises:
        DataError: If it cannot be downloaded, or is not the file that is expected.
        IncompleteError: If another process is downloading it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    by_hand = f"; you can also download {archive.url} yourself and put it at {path}"
    with exclusive(path):
        if path.exists():
            try:
                return path, check_file(path, archive)
            except DataError as error:
                raise DataError(f"{error}; delete that file and run again") from None
        try:
            _fetch(archive, part, schemes)
        except DataError as error:
            raise DataError(f"{error}{by_hand}") from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            raise DataError(f"{archive.url}: download failed ({error}){by_hand}") from error
        try:
            digest = check_file(part, archive)
        except DataError:
            part.unlink()  # its bytes are wrong: continuing from them could never succeed
            raise
        part.replace(path)
        return path, digest
