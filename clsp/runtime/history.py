"""The step log of a job: one JSON object per line, kept in step across interruptions."""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.errors import DataError
from clsp.runtime.files import writing


class StepLog:
    """A step log that lies in its file alone, however many steps a job takes.

    Every record has an integer `step`, strictly increasing.

    Args:
        path: Of the file; what lies beyond `length` was not saved, and is cut off.
        length: Bytes that count; 0 starts anew.

    Raises:
        DataError: If the file is shorter than that.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        found = path.stat().st_size
        if found < length:
            raise DataError(
                f"{path}: the step log has {found} bytes, but the resume state counts on {length}; "
                f"delete the folder {path.parent} to start this job anew"
            )
        os.truncate(path, length)
        self.length = length
        records = last_records(path, 1) if length else []
        self.last: int = records[-1]["step"] if records else -1

    def log(self, step: int, **values: float | int) -> None:
        """Append one record.

        Raises:
            ValueError: If the step does not follow the last one, or a value is not finite.
            DataError: If it cannot be written.
        """
        self.extend([{"step": step, **values}])

    def extend(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records in one write; all of them, or none where one is refused.

        Raises:
            ValueError: If a step does not follow the one before, or a value is not finite.
            DataError: If they cannot be written.
        """
        last = self.last
        for record in records:
            if record["step"] <= last:
                raise ValueError(f"step {record['step']} does not follow {last}")
            last = record["step"]
        lines = "".join(canonical_json(record) + "\n" for record in records).encode()
        with writing(self.path), open(self.path, "ab") as stream:
            stream.write(lines)
        self.last, self.length = last, self.length + len(lines)

    def sync(self) -> int:
        """Bring everything to the disk; returns the length in bytes, for the resume state."""
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
        return self.length


def read_history(path: Path) -> list[dict[str, Any]]:
    """All complete records of a history file; a line that is still being written is left out."""
    return read_on(path, 0)[0]


def read_on(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Complete records from a byte on, and the byte at which the next one will begin.

    A file that no longer has the end of a record before `start` was cut off by a run that resumed;
    it is read from its beginning.
    """
    with open(path, "rb") as stream:
        if start:
            stream.seek(start - 1)
            start = start if stream.read(1) == b"\n" else 0
        stream.seek(start)
        text = stream.read()
    *lines, rest = text.split(b"\n")
    return [parse_json(line.decode()) for line in lines], start + len(text) - len(rest)


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """The last complete records of a history file, in order; memory grows with `count` alone."""
    with open(path, encoding="utf-8") as stream:
        lines = deque((line for line in stream if line.endswith("\n")), maxlen=count)
    return [parse_json(line) for line in lines]
