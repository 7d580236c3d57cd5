"""Only formats that cannot run code lie among results: no pickle, no arrays of objects, no bombs.

Files of publishers, which were fetched, are left alone: whatever reads them has to look out. Below
exports/ of the report, which nothing reads, copies of the workflow's own sources may lie too.
"""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from clsp.audit.arrays import check_npy, check_npz
from clsp.audit.checks.a03_file_set import _walk as files_below
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.suite import Suite

ID = "A29"
SEVERITY = BLOCKING
LEVEL = "L1"
QUARANTINE = "fetch-dataset"  # stage whose files somebody else made
EXPORTS = "exports"
SOURCES = ("", ".smk", ".yaml", ".lock")  # that an exported crate copies
HEADER = 100_000_000  # bytes that a safetensors header may have, as its own reader has it
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def _npy(path: Path) -> str:
    check_npy(path)
    return ""


def _npz(path: Path) -> str:
    check_npz(path)
    return ""


def _safetensors(path: Path) -> str:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER, size - 8):
            return f"a header of {length} bytes in a file of {size}"
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        return "a header that is no mapping"
    spans = sorted(v["data_offsets"] for n, v in header.items() if n != "__metadata__")
    end = 0
    for first, last in spans:
        if first != end or last < first:
            return f"tensors that overlap or leave a hole at byte {first}"
        end = last
    return "" if 8 + length + end == size else f"{8 + length + end} bytes told of {size}"


def _arrow(path: Path) -> str:
    with open(path, "rb") as stream:
        return "" if stream.read(6) == b"ARROW1" else "no Arrow file"


def _text(path: Path) -> str:
    with open(path, "rb") as stream:
        return "bytes that are no text" if b"\0" in stream.read(4096) else ""


def _picture(_: Path) -> str:
    return ""  # drawn for people; nothing reads them back


FORMATS: dict[str, Callable[[Path], str]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".arrow": _arrow,
    ".png": _picture,
    **dict.fromkeys((".json", ".jsonl", ".csv", ".md", ".tex", ".html", ".txt", ".bib"), _text),
}
BROKEN = (ValueError, LookupError, TypeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile)


def wrong_with(path: Path, sources: bool = False) -> str:
    """Why a file is none that may lie here, or nothing.

    Args:
        path: The file.
        sources: Whether the workflow's sources may lie there too.
    """
    kind = path.suffix.lower()
    judge = _text if sources and kind in SOURCES else FORMATS.get(kind)
    if judge is None:
        return f"a file of kind {path.suffix or 'none'}"
    try:
        with open(path, "rb") as stream:
            if stream.read(2) in PICKLES:
                return "a pickle"
        return judge(path)
    except BROKEN as error:
        return f"another thing ({type(error).__name__}: {error})"[:160]


def _numbers(suite: Suite, path: Path) -> tuple[str, frozenset[Number]]:
    owners = [a for a in suite.records if any(a.folder / n == path for n in a.subjects)]
    numbers = frozenset(number for owner in owners for number in suite.affected(owner))
    return (f"{owners[0].stage} {owners[0].folder.name}" if owners else ""), numbers


def check(suite: Suite) -> list[Finding]:
    """Look at the kind and the first bytes of every file."""
    findings = []
    foreign = {a.folder / n for a in suite.records if a.stage == QUARANTINE for n in a.subjects}
    for root in (suite.results, suite.reports):
        for path in files_below(root):
            if path.is_symlink() or path in foreign:
                continue  # A03 reports links
            parts = path.relative_to(root).parts
            exported = root == suite.reports and parts[0] == EXPORTS
            if found := wrong_with(path, sources=exported):
                about, numbers = _numbers(suite, path)
                message = "this file must not be opened by anybody who does not trust its maker"
                expected = "a format that cannot run code, whole"
                told = (str(path), expected, found, message, about, numbers)
                findings.append(Finding(ID, BLOCKING, *told))
    return findings
