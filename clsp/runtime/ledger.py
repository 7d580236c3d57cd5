"""The ledger of attempts: every start and end of a job, one line each, chained by hashes.

Lines are only ever appended to results/<profile>/ledger.jsonl. Each holds the sha256 of the line
before it, so that a line changed, dropped or put in breaks the chain; that the end was cut off is
seen by whoever noted the head's hash. A job that cannot write here fails (audit.md R7). One that
was killed outright leaves a start without an end; the next attempt at the same artefact notes that.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from clsp.runtime.canonical import canonical_json, parse_json, sha256_text
from clsp.runtime.errors import DataError, ExhaustedError
from clsp.runtime.places import without_places

NAME = "ledger.jsonl"
ELSEWHERE = Path(".clsp") / NAME  # of jobs run by hand outside results/ and reports/
GENESIS = "0" * 64  # what the first line names as the line before it
SCHEMA = 1
TEXTS = ("event", "attempt", "manifest", "stage", "status")  # fields that are texts, if there
REASON = 500  # characters of a reason that are kept


def ledger_of(manifest: Path) -> Path:
    """The ledger of an artefact: that of its profile, for results and reports alike."""
    for folder in manifest.resolve().parents:
        if folder.parent.name in ("results", "reports"):
            return folder.parent.with_name("results") / folder.name / NAME
    return ELSEWHERE


def ledger_below(results: Path) -> Path | None:
    """The ledger of a profile's results, or the copy that travelled with its records."""
    places = (results / NAME, results / "provenance" / NAME)
    return next((path for path in places if path.is_file()), None)


def place_of(manifest: Path) -> str:
    """How the ledger names an artefact: its manifest below the profile's folder.

    Results may be moved, so that the path above them is no part of it.
    """
    resolved = manifest.resolve()
    for folder in resolved.parents:
        if folder.parent.name in ("results", "reports"):
            return f"{folder.parent.name}/{resolved.relative_to(folder).as_posix()}"
    return resolved.name


@dataclass(frozen=True)
class Chain:
    """A ledger as it was read.

    Attributes:
        lines: Records in order, as far as they could be read.
        hashes: sha256 of each of those lines, without the line feed.
        problems: What is wrong, as (line from 1, expected, found).
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    problems: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def head(self) -> str:
        """sha256 of the last line; GENESIS of an empty ledger."""
        return self.hashes[-1] if self.hashes else GENESIS


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, and what a process that was killed while it wrote left behind them."""
    *whole, rest = content.split(b"\n")
    return whole, rest


def _chain(content: bytes) -> Chain:
    found, (whole, rest) = Chain(), _split(content)
    for number, line in enumerate(whole, start=1):
        text = line.decode("utf-8", errors="replace")
        try:
            record = parse_json(text)
        except (ValueError, RecursionError) as error:
            found.problems.append((number, "a record", str(error)[:80]))
            record = {}
        if not isinstance(record, dict) or any(type(record.get(k, "")) is not str for k in TEXTS):
            found.problems.append((number, "a record of an attempt", text[:80]))
            record = {}
        if record.get("prev_sha256") != found.head:
            told = str(record.get("prev_sha256"))[:16]
            found.problems.append((number, f"the line before, {found.head[:16]}", told))
        found.lines.append(record)
        found.hashes.append(sha256_text(text))
    if rest:
        found.problems.append((len(whole) + 1, "a whole line", f"{len(rest)} bytes of one"))
    return found


def read_ledger(path: Path) -> Chain:
    """Read a ledger and follow its chain.

    Raises:
        OSError: If it cannot be read.
    """
    return _chain(path.read_bytes())


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The ledger, open for reading and appending, for one process at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream
    except OSError as error:
        raise DataError(
            f"{path}: the attempt cannot be recorded ({error.strerror or error}), so the job stops"
        ) from error


def _append(stream: IO[bytes], head: str, record: dict[str, Any]) -> str:
    """Write one line in one go and bring it to the disk; returns its hash."""
    text = canonical_json({"schema_version": SCHEMA, **record, "prev_sha256": head})
    line = f"{text}\n".encode()
    written = stream.write(line)
    if written != len(line):
        os.ftruncate(stream.fileno(), os.fstat(stream.fileno()).st_size - (written or 0))
        raise OSError(f"only {written} of {len(line)} bytes could be written")
    os.fsync(stream.fileno())
    return sha256_text(text)


def _mend(stream: IO[bytes], content: bytes, head: str) -> str:
    """Take off what a killed process left of a line, and note it; returns the new head."""
    rest = _split(content)[1]
    if not rest:
        return head
    os.ftruncate(stream.fileno(), len(content) - len(rest))
    note = {"event": "torn", "bytes": len(rest), "text": rest.decode("utf-8", "replace")[:REASON]}
    return _append(stream, head, note)


def _abandoned(chain: Chain, place: str) -> list[str]:
    """Attempts at an artefact that have begun and not ended."""
    begun = {
        line["attempt"]: None
        for line in chain.lines
        if line.get("event") == "start" and line.get("manifest") == place
    }
    ended = {line.get("attempt") for line in chain.lines if line.get("event") == "end"}
    return [attempt for attempt in begun if attempt not in ended]


class Attempt:
    """One attempt at an artefact, from its start to its end.

    Args:
        manifest: Of the artefact. Its caller holds the artefact's lock, so that whatever attempt
            has not ended was killed.
        uid: Name of the attempt; the manifest's run_uid if it succeeds.
        about: What else the first line says.

    Raises:
        DataError: If nothing can be recorded.
    """

    def __init__(self, manifest: Path, uid: str, about: dict[str, Any]) -> None:
        self.path, self.place, self.uid = ledger_of(manifest), place_of(manifest), uid
        self.ended = False
        with _locked(self.path) as stream:
            stream.seek(0)
            content = stream.read()
            chain = _chain(content)
            head = _mend(stream, content, chain.head)
            for killed in _abandoned(chain, self.place):
                line = {"event": "end", "attempt": killed, "status": "killed", "noted_by": uid}
                head = _append(stream, head, line)
            start = {"event": "start", "attempt": uid, "manifest": self.place, **about}
            _append(stream, head, start)

    def end(self, status: str, **about: Any) -> None:
        """Record how the attempt ended; only the first call counts.

        Args:
            status: "completed", "failed" or "preempted".
            about: What else the line says.

        Raises:
            DataError: If it cannot be recorded.
        """
        if self.ended:
            return
        self.ended = True
        with _locked(self.path) as stream:
            stream.seek(0)
            content = stream.read()
            head = _mend(stream, content, _chain(content).head)
            _append(stream, head, {"event": "end", "attempt": self.uid, "status": status, **about})


def reason_of(error: BaseException) -> str:
    """Kind and first line of an error, without this machine's folders; "oom": memory ran out."""
    lines = str(error).splitlines()
    kind = "oom" if isinstance(error, ExhaustedError) else type(error).__name__
    return f"{kind}: {without_places(lines[0]) if lines else ''}"[:REASON]


def status_of(error: BaseException) -> str:
    """How an attempt ended: preempted if a signal ended it, else failed."""
    signalled = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128
    return "preempted" if signalled or isinstance(error, KeyboardInterrupt) else "failed"
