"""Folders of artefacts hold the files of their manifests and nothing else; no links."""

import os
import stat
from pathlib import Path

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.report.records import Records

ID = "A03"
SEVERITY = BLOCKING
LEVEL = "L0"


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
    return findings
