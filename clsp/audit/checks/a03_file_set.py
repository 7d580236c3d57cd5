"""Folders of artefacts hold the files of their manifests and nothing else; no links."""

import os
import stat
from pathlib import Path

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.report.records import Records
from clsp.runtime.ledger import NAME
from clsp.runtime.manifest import FAILED

ID = "A03"
SEVERITY = BLOCKING
LEVEL = "L0"
OURS = (NAME, "provenance", "audit.json", "exports")  # beside artefacts, and known


def _walk(folder: Path) -> list[Path]:
    """Every file and link below a folder; hidden entries are work in progress or a tool's notes."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(parent)
        found += [here / name for name in sorted(files) if not name.startswith(".")]
        found += [here / name for name in folders if (here / name).is_symlink()]
    return found


def _is_regular(path: Path) -> bool:
    """Whether a path leads to a file with bytes of its own, or nowhere."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def irregular(suite: Suite) -> list[Finding]:
    """Pipes, sockets and devices, links to them included: to open one may never come back.

    Nothing else can be checked while one is there.
    """
    message = "nothing was read, because to read this may never end"
    told = ("files and folders alone", "a pipe, socket or device", message)
    return [
        Finding(ID, BLOCKING, str(path), *told, everything=True)
        for root in (suite.results, suite.reports)
        for path in _walk(root)
        if not _is_regular(path) and not path.is_dir()
    ]


def _top(root: Path, folder: Path) -> Path:
    """The outermost folder of an artefact; shards lie inside their bank's folder."""
    return folder.parent if folder.name == "shards" and folder.parent != root else folder


def _stray(records: Records, folders: set[Path]) -> list[tuple[Path, str]]:
    known = {a.folder / name for a in records for name in a.subjects}
    known |= set(records.read[0]) | set(records.read[1])
    strays = []
    for folder in sorted(folders):
        for path in _walk(folder):
            if path.is_symlink():
                strays.append((path, "a link"))
            elif path not in known:
                strays.append((path, "a file that no manifest names"))
    return strays


def _beside(suite: Suite, named: set[Path]) -> list[Finding]:
    """What lies outside all artefacts: links are refused, other files of nobody are noted."""
    findings = []
    for root, records in ((suite.results, suite.records), (suite.reports, suite.report_records)):
        known = {a.folder / name for a in records for name in a.subjects} | named
        known |= set(records.read[0]) | set(records.read[1])
        odd: dict[Path, list[Path]] = {}
        for path in _walk(root):
            place = path.relative_to(root)
            if path.is_symlink() and path not in named:
                message, told = "does not belong here", ("files and folders alone", "a link")
                findings.append(
                    Finding(ID, BLOCKING, str(path), *told, message, everything=path.name == NAME)
                )
            elif path not in known and place.parts[0] not in OURS and FAILED not in path.name:
                odd.setdefault(path.parent, []).append(path)
        message = "no manifest names it, so that nothing rests on it and nothing was checked"
        findings += [
            Finding(
                ID, BADGE, str(paths[0]), "a file of an artefact", f"{len(paths)} such", message
            )
            for paths in odd.values()
        ]
    return findings


def check(suite: Suite) -> list[Finding]:
    """Compare what lies in the folders with what manifests name."""
    folders = {_top(suite.results, artefact.folder) for artefact in suite.records}
    drawn = {a.folder for a in suite.report_records if a.folder != suite.reports}
    findings = []
    strays = _stray(suite.records, folders) + _stray(suite.report_records, drawn)
    for path, found in strays:
        owners = [a for a in suite.records if path.is_relative_to(_top(suite.results, a.folder))]
        numbers = frozenset(number for a in owners for number in suite.affected(a))
        findings.append(
            Finding(
                ID,
                BLOCKING,
                str(path),
                "only files that a manifest names",
                found,
                "does not belong here",
                owners[0].folder.name if owners else "report",
                numbers,
            )
        )
    return findings + _beside(suite, {path for path, _ in strays})
