"""One https request for one file: where it may go, what is refused, what is worth another try."""

import io
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from clsp.config.catalog import is_known_host
from clsp.runtime.errors import DataError

OK, PARTIAL, RANGE_REFUSED = 200, 206, 416
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # worth another try
TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,80})", re.IGNORECASE)
PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<!--|<\?xml)", re.IGNORECASE)
SNIFFED = 4096  # bytes that tell a page from an archive


class RefusedError(DataError):
    """This address will not give the file: no further try there."""


class FailedError(DataError):
    """This time it did not work; `wait` is how long the server asks to be left alone, seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        """Keep the server's wish with the message."""
        super().__init__(message)
        self.wait = wait


class RangeError(DataError):
    """The rest of a file cannot be had from here; the whole file perhaps."""


class BeyondError(RangeError):
    """The server's file ends before the bytes asked for; `total` is its size, if it says so."""

    def __init__(self, message: str, total: int | None) -> None:
        """Keep the size with the message."""
        super().__init__(message)
        self.total = total


class SlowError(DataError):
    """The server sends, but so slowly that another one should be tried."""


def check_url(url: str, hosts: Iterable[str], schemes: Iterable[str]) -> None:
    """Let only https addresses at known hosts pass, without credentials.

    Raises:
        RefusedError: Naming what is wrong.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise RefusedError(f"{url}: not an address ({error})") from None
    if parts.scheme not in schemes:
        raise RefusedError(f"{url}: only {', '.join(schemes)} addresses are fetched")
    if parts.username is not None or parts.password is not None:
        raise RefusedError(f"{parts.scheme}://{host}: an address must not hold credentials")
    if not is_known_host(host, hosts):
        raise RefusedError(f"{url}: host {host!r} is not among {', '.join(hosts)}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that would have been accepted itself."""

    def __init__(self, hosts: Iterable[str], schemes: Iterable[str]) -> None:
        self.hosts, self.schemes = hosts, schemes

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Check the new address before it is asked."""
        try:
            check_url(newurl, self.hosts, self.schemes)
        except RefusedError as error:
            raise RefusedError(f"redirected to {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Message) -> Any:
        """Follow without reading the body, which urllib would read whole, however long it is."""
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@dataclass(frozen=True)
class Answer:
    """What a server answered, before its body is read.

    Attributes:
        stream: The body.
        start: Byte of the file that the body begins with.
        end: Byte of the file after the last of the body, where the server says so.
        total: Size of the whole file, where the server says so.
        validator: ETag or Last-Modified, by which If-Range knows the file again.
        kind: Content type.
        encoding: Content encoding; "identity": the file as it is.
    """

    stream: Any
    start: int
    end: int | None
    total: int | None
    validator: str | None
    kind: str
    encoding: str


def one_line(text: str) -> str:
    """What a server says, without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _validator(headers: Message) -> str | None:
    """A strong ETag, else the time of change: If-Range allows no weak ones."""
    tag, changed = headers.get("ETag", ""), headers.get("Last-Modified", "")
    given = tag if tag.startswith('"') else changed
    return given if given and given.isascii() and given.isprintable() else None


def _answer(response: Any, start: int) -> Answer:
    headers = response.headers
    encoding = headers.get("Content-Encoding", "").strip().lower() or "identity"
    about = (_validator(headers), headers.get_content_type(), encoding)
    if response.status == OK:
        length = _number(headers.get("Content-Length"))
        return Answer(response, 0, length, length, *about)
    if response.status != PARTIAL:
        raise RefusedError(f"answers with status {response.status}")
    given = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", given.strip())
    if match is None or int(match[1]) != start:
        raise RangeError(f"asked for bytes from {start}, got {given!r}")
    return Answer(response, start, int(match[2]) + 1, _number(match[3]), *about)


def _beyond(reason: str, headers: Message | None) -> BeyondError:
    given = (headers.get("Content-Range") or "") if headers else ""
    match = re.fullmatch(r"bytes \*/([0-9]{1,18})", given.strip())
    return BeyondError(reason, int(match[1]) if match else None)


def _wait(headers: Message | None) -> float | None:
    seconds = _number(headers.get("Retry-After")) if headers else None
    return None if seconds is None else float(seconds)


def ask(
    url: str,
    hosts: Iterable[str],
    schemes: Iterable[str],
    timeout: float,
    start: int = 0,
    validator: str | None = None,
) -> Answer:
    """Ask for a file, or for the rest of it.

    Args:
        url: Its address.
        hosts: Where it may be, also after redirects.
        schemes: Accepted schemes.
        timeout: Seconds without a byte.
        start: Bytes that are here already.
        validator: Of those bytes: if the file is another one by now, all of it is sent.

    Raises:
        RefusedError: If the address, a redirect or the answer rules the file out.
        FailedError: If it may work later.
        RangeError: If the server cannot continue from `start`.
    """
    check_url(url, hosts, schemes)
    headers = {"User-Agent": "clsp", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked
    opener = urllib.request.build_opener(_Redirects(hosts, schemes))
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"answers with status {error.code} {error.reason}".strip()
            if error.code == RANGE_REFUSED:
                raise _beyond(reason, error.headers) from None
            if error.code in TRANSIENT:
                raise FailedError(reason, _wait(error.headers)) from None
            raise RefusedError(reason) from None
    except ValueError as error:  # a redirect or header that urllib cannot make sense of
        raise RefusedError(f"answers with something that makes no sense ({error})") from None
    try:
        return _answer(response, start)
    except DataError:
        response.close()
        raise


def refuse_page(kind: str, first: bytes) -> None:
    """Recognise a web page that is sent in place of a file, as virus-scan and log-in pages are.

    Args:
        kind: Content type that the server gives.
        first: The first bytes of the body.

    Raises:
        RefusedError: With the page's title.
    """
    if kind not in ("text/html", "application/xhtml+xml") and not PAGE.match(first):
        return
    title = TITLE.search(first)
    shown = f' with the title "{one_line(title[1].decode(errors="replace"))}"' if title else ""
    raise RefusedError(f"sends a web page{shown} in place of the file")
