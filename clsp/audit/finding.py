"""What a check reports."""

from dataclasses import dataclass
from typing import Any, NamedTuple

BLOCKING = "blocking"  # the numbers that depend on it are invalid
INCOMPLETE = "incomplete"  # evidence is not there, so those numbers are not judged
BADGE = "badge"  # worth knowing; decides nothing


def plain(text: str) -> str:
    """Text that can be written and shown anywhere; names of hostile files may hold any bytes.

    What is no character (half a surrogate pair, a byte that is no UTF-8) and what steers a
    terminal comes out as an escape sequence, as in a string literal of Python.
    """
    shown = (c if c.isprintable() or c.isspace() else repr(c)[1:-1] for c in text)
    return "".join(shown)


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
        return plain(" ".join(f"{told}; expected {self.expected}, found {self.found}".split()))

    def record(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "id": self.id,
            "severity": self.severity,
            "file": plain(self.file),
            "subject": plain(self.subject),
            "expected": plain(self.expected),
            "found": plain(self.found),
            "message": plain(self.message),
            "numbers": ["/".join(filter(None, number)) for number in sorted(self.numbers)],
        }
