"""Every file has the size and sha256 that its manifest records; times are not looked at."""

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.runtime.manifest import Artefact

ID = "A02"
SEVERITY = BLOCKING
LEVEL = "L1"


def _files(suite: Suite, artefact: Artefact) -> list[Finding]:
    findings = []
    for name, subject in artefact.subjects.items():
        path = artefact.folder / name
        expected = str(subject["digest"].get("sha256"))
        inside = path.resolve().is_relative_to(artefact.folder.resolve())
        found = suite.sha256(path) if inside else "a path outside the artefact"
        if found != expected:
            message = "is missing or unreadable" if found is None else "its bytes changed"
            findings.append(
                Finding(
                    ID,
                    BLOCKING,
                    str(path),
                    f"sha256 {expected[:16]}",
                    (found or "no file")[:27],
                    message,
                    f"{artefact.stage} {artefact.folder.name}",
                    suite.affected(artefact),
                    suite.cells_of(artefact),
                )
            )
    return findings


def check(suite: Suite) -> list[Finding]:
    """Hash every file of every artefact again."""
    return [finding for artefact in suite.artefacts for finding in _files(suite, artefact)]
