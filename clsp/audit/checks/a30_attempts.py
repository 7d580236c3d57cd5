"""Every artefact in use is the end of a recorded attempt, and every other attempt has a reason.

The manifest's run_uid names the attempt; its last line holds the manifest's sha256. Attempts that
failed, were stopped or killed stay in the ledger with their reason. What was finished but is not
reported, and what was made several times from the same settings and code, is noted: claims count
the declared seeds, never the best ones.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import REPORTS, Suite
from clsp.runtime.ledger import NAME
from clsp.runtime.manifest import Artefact

ID = "A30"
SEVERITY = BLOCKING
LEVEL = "L0"
ENDS = ("completed", "failed", "preempted", "killed")
Line = dict[str, Any]
Problem = tuple[str, str, str]  # expected, found, message


def _place(suite: Suite, artefact: Artefact) -> str:
    for kind, root in (("results", suite.results), ("reports", suite.reports)):
        if artefact.manifest.is_relative_to(root):
            return f"{kind}/{artefact.manifest.relative_to(root).as_posix()}"
    return artefact.manifest.name


def _problem(suite: Suite, artefact: Artefact, start: Line, end: Line) -> Problem | None:
    place = _place(suite, artefact)
    if not start:
        return f"an attempt at {place}", "none", "no attempt that made it is on record"
    wanted = {
        "manifest": place,
        "stage": artefact.stage,
        "spec_sha256": artefact.predicate["externalParameters"].get("spec_sha256"),
        "code": artefact.predicate["internalParameters"].get("code"),
    }
    for name, value in wanted.items():
        if start.get(name) != value:
            told = f"{name} = {start.get(name)}"[:120]
            return f"{name} = {value}"[:120], told, "the attempt on record made something else"
    if end and end.get("status") != "completed":
        return (
            "an attempt that was completed",
            f"{end.get('status')}",
            "the attempt did not succeed",
        )
    now = suite.sha256(artefact.manifest)
    if end and end.get("manifest_sha256") != now:
        recorded = f"{end.get('manifest_sha256')}"[:16]
        return f"the manifest {recorded}", f"{now}"[:16], "the manifest is not the one recorded"
    return None


def _artefacts(suite: Suite, starts: dict[str, Line], ends: dict[str, Line]) -> Iterator[Finding]:
    for artefact in {artefact.manifest: artefact for _, artefact in suite.in_use}.values():
        uid, path = str(artefact.predicate.get("run_uid")), str(artefact.manifest)
        scope = (suite.affected(artefact), suite.cells_of(artefact))
        about = f"{artefact.stage} {artefact.folder.name}"
        if problem := _problem(suite, artefact, starts.get(uid, {}), ends.get(uid, {})):
            yield Finding(ID, BLOCKING, path, *problem, about, *scope)
        elif uid not in ends:
            told = ("an end of the attempt", "none", "it was killed behind its last act")
            yield Finding(ID, BADGE, path, *told, about)


def _lines(suite: Suite, path: Path) -> Iterator[Finding]:
    """Lines that make no sense, and failures without a reason."""
    begun, over = set(), set()
    for number, line in enumerate(suite.ledger.lines, start=1):
        event, attempt, place = line.get("event"), line.get("attempt"), f"{path}, line {number}"
        told = None
        if event == "start":
            told = None if attempt not in begun else ("attempts with names of their own", attempt)
            begun.add(attempt)
        elif event == "end":
            if attempt not in begun or attempt in over:
                told = ("one end of an attempt that began", f"an end of {attempt}")
            elif line.get("status") not in ENDS:
                told = (f"one of {', '.join(ENDS)}", f"{line.get('status')}")
            elif line["status"] in ("failed", "preempted") and not line.get("reason"):
                told = ("the reason why it ended", "none")
            over.add(attempt)
        if told:
            message = "the record of attempts contradicts itself"
            yield Finding(ID, BLOCKING, place, *map(str, told), message, everything=True)


def _unreported(suite: Suite, ends: dict[str, Line], path: Path) -> Iterator[Finding]:
    """Notes on what was finished and is not shown, or was made more than once."""
    shown = {_place(suite, artefact) for _, artefact in suite.in_use}
    starts = [line for line in suite.ledger.lines if line.get("event") == "start"]
    done = [s for s in starts if ends.get(s["attempt"], {}).get("status") == "completed"]
    science = [s for s in done if s.get("stage") not in (*REPORTS, "check-data")]
    absent = sorted({s["manifest"] for s in science} - shown)
    if absent:
        message = "finished, but params.yaml does not ask for it, so no table shows it"
        found = f"{len(absent)}: {', '.join(absent[:4])}"
        yield Finding(ID, BADGE, str(path), "attempts that are reported", found, message)
    keys = ("manifest", "spec_sha256", "code")
    times = Counter(tuple(s.get(k) for k in keys) for s in science)
    for (place, *_), count in times.items():
        if count > 1 and place in shown:
            message = "made again from the same settings and code; the last one counts"
            yield Finding(ID, BADGE, str(path), "one making", f"{count} of {place}", message)


def check(suite: Suite) -> list[Finding]:
    """Compare manifests with the ledger of attempts."""
    if suite.ledger is None:
        return []  # A04 reports it
    path = suite.results / NAME
    lines = suite.ledger.lines
    starts = {line.get("attempt"): line for line in lines if line.get("event") == "start"}
    ends = {line.get("attempt"): line for line in lines if line.get("event") == "end"}
    return [
        *_artefacts(suite, starts, ends),
        *_lines(suite, path),
        *_unreported(suite, ends, path),
    ]
