"""Every file has the size and sha256 that its manifest records; times are not looked at."""

from pathlib import Path

from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding
from clsp.audit.suite import Suite
from clsp.runtime.manifest import Artefact

ID = "A02"
SEVERITY = BLOCKING
LEVEL = "L1"


def _told(suite: Suite, path: Path, found: str | None, expected: str) -> tuple[str, str]:
    """Severity and message about a file that does not have the recorded bytes."""
    if found is None and suite.place.left_out.get(path) == expected:
        return INCOMPLETE, "not hashed again: left out of the bundle"
    return BLOCKING, "is missing or unreadable" if found is None else "its bytes changed"


def _files(suite: Suite, artefact: Artefact) -> list[Finding]:
    findings = []
    scope = (suite.affected(artefact), suite.cells_of(artefact))
    about = f"{artefact.stage} {artefact.folder.name}"
    for name, subject in artefact.subjects.items():
        path = artefact.folder / name
        expected = str(subject["digest"].get("sha256"))
        inside = path.resolve().is_relative_to(artefact.folder.resolve())
        found = suite.sha256(path) if inside else "a path outside the artefact"
        if found != expected:
            severity, message = _told(suite, path, found, expected)
            told = (f"sha256 {expected[:16]}", (found or "no file")[:27], message)
            findings.append(Finding(ID, severity, str(path), *told, about, *scope))
        elif (size := path.stat().st_size) != subject["size"]:
            told = (f"{subject['size']} bytes", f"{size}", "the size on record is another")
            findings.append(Finding(ID, BLOCKING, str(path), *told, about, *scope))
    return findings


def check(suite: Suite) -> list[Finding]:
    """Hash every file of every artefact again."""
    return [finding for artefact in suite.artefacts for finding in _files(suite, artefact)]
