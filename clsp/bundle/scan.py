"""Looks through a finished archive for what is private, inside the formats that results have.

Texts are searched whole. Of arrays, weights and pictures what people may have written is: names and
headers, strings, text chunks. Pixels and numbers are no text. Files of publishers, below a fetched
dataset, are searched for words of this machine alone: they were written before.
"""

import html
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO
from urllib.parse import unquote_to_bytes

import numpy as np

from clsp.bundle.pack import TEXT
from clsp.bundle.private import FORMS, LONGEST, NO_SECRET, Form, Word

BLOCK = 1 << 22
MOST_HEADER = 100_000_000  # bytes of a safetensors header, as its own reader has it
MOST_TEXT = 1 << 28  # bytes that a packed text may inflate to
EMBEDDED = re.compile(rb"base64,[A-Za-z0-9+/=]{40,}")  # pictures inside a page
ESCAPED = re.compile(rb"\\u([0-9a-fA-F]{4})")
CLOSING, TAG = re.compile(rb"</\w+>"), re.compile(rb"<[^<>]*>")
RUN = re.compile(rb"(?:[\x20-\x7e]{12,}|(?:[\x20-\x7e]\0){12,})")  # in one byte or two
CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")
PUBLISHED = re.compile(r"/data/(?:raw|fetched)/[^/]+/files/")
BROKEN = (
    ValueError,
    LookupError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Hit:
    """One private thing: the member, what it is, and enough of it to be found."""

    member: str
    what: str
    shown: str

    @property
    def line(self) -> str:
        """For a message."""
        return f"{self.member}: {self.what}: {self.shown}"


def _shown(text: bytes, secret: bool) -> str:
    plain = text.decode("utf-8", "replace")
    plain = "".join(letter if letter.isprintable() else "?" for letter in plain)
    return f"{plain[:4]}... ({len(plain)} characters)" if secret else plain[:120]


def _whole(text: bytes, start: int, stop: int) -> bool:
    around = text[start - 1 : start] + text[stop : stop + 1]
    return not re.search(rb"[A-Za-z0-9_]", around)


def _words(text: bytes, words: Sequence[Word]) -> Iterator[tuple[str, str]]:
    for word in words:
        start = text.find(word.text)
        while start >= 0:
            stop = start + len(word.text)
            if not word.whole or _whole(text, start, stop):
                yield word.what, _shown(word.text, word.what.startswith("a secret"))
                break
            start = text.find(word.text, stop)


def _forms(text: bytes, forms: Sequence[Form]) -> Iterator[tuple[str, str]]:
    lowered = None
    for form in forms:
        if form.hint:
            lowered = text.lower() if lowered is None else lowered
            if form.hint not in lowered:
                continue
        for match in form.pattern.finditer(text):
            value = match.groupdict().get("value", match.group())
            if value is None or ("by its name" in form.what and NO_SECRET.match(value)):
                continue
            secret = not any(word in form.what for word in ("folder", "path", "file"))
            yield form.what, _shown(value, secret)
            break


class Scanner:
    """Searches members one by one.

    Args:
        words: Of this machine.
        forms: That are private anywhere.
    """

    def __init__(self, words: Sequence[Word], forms: Sequence[Form] = FORMS) -> None:
        self.words, self.forms = words, forms

    def member(self, name: str, stream: IO[bytes]) -> list[Hit]:
        """What is private in one member; a damaged one is searched as it is."""
        forms = () if PUBLISHED.search(f"/{name}") else self.forms
        found = dict.fromkeys(self._in(name.encode(), forms))
        try:
            for text in _texts(name.lower(), stream):
                for view in _views(text):
                    found |= dict.fromkeys(self._in(view, forms))
        except BROKEN:
            stream.seek(0)
            for text in _runs(stream):
                found |= dict.fromkeys(self._in(text, forms))
        return [Hit(name, what, shown) for what, shown in found]

    def _in(self, text: bytes, forms: Sequence[Form]) -> Iterator[tuple[str, str]]:
        yield from _words(text, self.words)
        yield from _forms(text, forms)


def _views(text: bytes) -> Iterator[bytes]:
    """A text as it is, and without what hides letters: escapes, tags, other widths of letters."""
    yield text
    if ESCAPED.search(text):
        yield ESCAPED.sub(lambda found: chr(int(found[1], 16)).encode(errors="replace"), text)
    if b"%2" in text:
        yield unquote_to_bytes(text)
    if b"\0" in text:
        yield text.replace(b"\0", b"")
    if b"&" in text or b"</" in text:
        plain = TAG.sub(b" ", CLOSING.sub(b"", text)).decode("latin-1")
        yield html.unescape(plain).encode("latin-1", errors="replace")


def _texts(name: str, stream: IO[bytes]) -> Iterator[bytes]:
    """Whatever text a file of a kind can hold."""
    for ending, read in READERS.items():
        if name.endswith(ending):
            return read(stream)
    return _plain(stream) if name.endswith(TEXT) else _runs(stream)


def _blocks(stream: IO[bytes], length: float = math.inf) -> Iterator[bytes]:
    """So many bytes of a file at most, in blocks that overlap."""
    kept = b""
    while block := stream.read(int(min(BLOCK, length))):
        text = kept + block
        yield text
        length -= len(block)
        kept = text[-LONGEST:]


def _plain(stream: IO[bytes]) -> Iterator[bytes]:
    """A text without pictures embedded in it."""
    for text in _blocks(stream):
        yield EMBEDDED.sub(b"base64,", text)


def _runs(stream: IO[bytes]) -> Iterator[bytes]:
    """Runs of letters in any other file; bytes that are no text look like anything at all."""
    for text in _blocks(stream):
        yield b"\n".join(run.replace(b"\0", b"") for run in RUN.findall(text))


def _npy(stream: IO[bytes]) -> Iterator[bytes]:
    """The header of an array, and its strings if it has any."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    yield str(dtype).encode()
    if not _has_text(dtype):
        return
    count = int(np.prod(shape, dtype=np.int64))
    if dtype.hasobject:
        raise ValueError("an array that cannot be searched")
    for text in _blocks(stream, count * dtype.itemsize):
        yield text.replace(b"\0", b"")  # of strings, every letter takes four bytes


def _has_text(dtype: np.dtype) -> bool:
    if dtype.fields:
        return any(_has_text(field[0]) for field in dtype.fields.values())
    return dtype.base.kind in "SUVO"


def _npz(stream: IO[bytes]) -> Iterator[bytes]:
    with zipfile.ZipFile(stream) as archive:
        yield archive.comment
        for entry in archive.infolist():
            yield entry.filename.encode() + b"\n" + entry.extra + b"\n" + entry.comment
            with archive.open(entry) as inside:
                yield from _npy(inside) if entry.filename.endswith(".npy") else _runs(inside)


def _safetensors(stream: IO[bytes]) -> Iterator[bytes]:
    """The header; its own texts are escaped, so that they are looked at unescaped too."""
    length = struct.unpack("<Q", stream.read(8))[0]
    if length > MOST_HEADER:
        raise ValueError("a header that is too long")
    header = stream.read(length)
    yield header
    told = json.loads(header).get("__metadata__") or {}
    yield "\n".join(f"{key}={value}" for key, value in told.items()).encode()


def _png(stream: IO[bytes]) -> Iterator[bytes]:
    """Text chunks, compressed ones too, and whatever follows the picture."""
    if stream.read(8) != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG")
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">L4s", head)
        if kind not in CHUNKS:
            stream.seek(length + 4, io.SEEK_CUR)
            if kind == b"IEND":
                yield stream.read()
                return
            continue
        content = stream.read(length)
        stream.seek(4, io.SEEK_CUR)
        yield content
        for start in (i for i, byte in enumerate(content[:200]) if byte == 0x78):
            try:
                yield zlib.decompressobj().decompress(content[start:], MOST_TEXT)
            except zlib.error:
                continue


READERS = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".png": _png}


def scan(archive: zipfile.ZipFile, words: Sequence[Word]) -> list[Hit]:
    """Everything private in an archive, in the order of members."""
    scanner, found = Scanner(words), []
    for entry in archive.infolist():
        with archive.open(entry) as stream:
            found += scanner.member(entry.filename, stream)
    return found
