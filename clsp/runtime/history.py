"""The step log of a job: one JSON object per line, kept in step across interruptions."""

from pathlib import Path
from typing import Any

from clsp.runtime.canonical import canonical_json, parse_json


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


def read_history(path: Path) -> list[dict[str, Any]]:
    """All complete records of a history file; a line that is still being written is left out."""
    text = path.read_text(encoding="utf-8")
    return [parse_json(line) for line in text.split("\n")[:-1]]
