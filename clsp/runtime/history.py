"""The step log of a job: one JSON object per line, kept in step across interruptions."""

import os
from pathlib import Path
from typing import Any

from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.errors import DataError


class History:
    """Appends records to a JSONL file. Every record has an integer `step`, strictly increasing."""

    def __init__(self, path: Path, earlier: list[dict[str, Any]] | None = None) -> None:
        self.path = path
        self.records = list(earlier or [])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(canonical_json(r) + "\n" for r in self.records), encoding="utf-8")

    def log(self, step: int, **values: float | int) -> None:
        """Append one record.

        Raises:
            ValueError: If the step does not follow the last one, or a value is not finite.
        """
        if self.records and step <= self.records[-1]["step"]:
            raise ValueError(f"step {step} does not follow {self.records[-1]['step']}")
        record = {"step": step, **values}
        line = canonical_json(record)
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


class StepLog:
    """A step log that lies in its file alone, for runs too long to hold it in memory.

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
        records = read_history(path) if length else []
        self.last: int = records[-1]["step"] if records else -1

    def log(self, step: int, **values: float | int) -> None:
        """Append one record.

        Raises:
            ValueError: If the step does not follow the last one, or a value is not finite.
        """
        if step <= self.last:
            raise ValueError(f"step {step} does not follow {self.last}")
        line = canonical_json({"step": step, **values})
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self.last = step

    def sync(self) -> int:
        """Bring everything to the disk; returns the length in bytes, for the resume state."""
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
            return stream.seek(0, os.SEEK_END)


def read_history(path: Path) -> list[dict[str, Any]]:
    """All complete records of a history file; a line that is still being written is left out."""
    text = path.read_text(encoding="utf-8")
    return [parse_json(line) for line in text.split("\n")[:-1]]
