"""What a check reports."""

from dataclasses import dataclass
from typing import Any, NamedTuple

BLOCKING = "blocking"  # the numbers that depend on it are invalid
INCOMPLETE = "incomplete"  # evidence is not there, so those numbers are not judged
BADGE = "badge"  # worth knowing; decides nothing


class Number(NamedTuple):
    """One number of one run: the unit that a verdict is about."""

    run: str
    task: str
    protocol: str
    variant: str


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        id: Of the check, for example "A19".
        severity: "blocking", "incomplete" or "badge".
        file: What is wrong, as a path.
        expected: What should be there.
        found: What is there.
        message: One sentence.
        subject: Run, artefact or cell it is about.
        numbers: Numbers that depend on it.
        cells: Table cells it touches directly, as "table:identifier".
        everything: True if no number can be trusted while it stands.
    """

    id: str
    severity: str
    file: str
    expected: str
    found: str
    message: str
    subject: str = ""
    numbers: frozenset[Number] = frozenset()
    cells: frozenset[str] = frozenset()
    everything: bool = False

    @property
    def line(self) -> str:
        """One line for the terminal."""
        word = {BLOCKING: "FAIL", INCOMPLETE: "MISS", BADGE: "NOTE"}[self.severity]
        about = f" [{self.subject}]" if self.subject else ""
        told = f"{word} {self.id} {self.file}{about}: {self.message}"
        return " ".join(f"{told}; expected {self.expected}, found {self.found}".split())

    def record(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "id": self.id,
            "severity": self.severity,
            "file": self.file,
            "subject": self.subject,
            "expected": self.expected,
            "found": self.found,
            "message": self.message,
            "numbers": ["/".join(filter(None, number)) for number in sorted(self.numbers)],
        }
