"""The ledger of attempts is one unbroken chain, and the line that the auditor noted is in it.

A line that was changed, dropped or put in breaks the chain. That its end was cut off is seen only
with `--anchor HASH`: the head, or any line, that somebody noted before.
"""

from clsp.audit.finding import BADGE, BLOCKING, INCOMPLETE, Finding
from clsp.audit.suite import Suite
from clsp.runtime.ledger import NAME

ID = "A04"
SEVERITY = BLOCKING
LEVEL = "L0"
SHOWN = 5


def _anchor(suite: Suite, path: str) -> list[Finding]:
    if suite.anchor is None:
        return []
    hashes = suite.ledger.hashes if suite.ledger else []
    wanted = suite.anchor.lower()
    if len(wanted) >= 16 and any(line.startswith(wanted) for line in hashes):
        return []
    found = f"none of the {len(hashes)} lines"
    message = "the line that was noted earlier is gone: the ledger was cut off or replaced"
    told = (f"a line with sha256 {wanted[:64]}", found, message)
    return [Finding(ID, BLOCKING, path, *told, everything=True)]


def check(suite: Suite) -> list[Finding]:
    """Follow the chain from the first line to the last."""
    path = str(suite.results / NAME)
    if suite.ledger is None:
        message = "attempts were not recorded, so that nobody sees those that were left out"
        told = ("a ledger", "none", message)
        absent = Finding(ID, INCOMPLETE, path, *told, everything=True)
        return [absent, *_anchor(suite, path)]
    broken = [
        Finding(
            ID,
            BLOCKING,
            f"{path}, line {line}",
            expected,
            found,
            "the chain of attempts is broken",
            everything=True,
        )
        for line, expected, found in suite.ledger.problems[:SHOWN]
    ]
    torn = [number for number, line in enumerate(suite.ledger.lines, 1) if _is_torn(line)]
    message = "a process was killed while it wrote; the next one noted it"
    notes = [
        Finding(ID, BADGE, f"{path}, line {number}", "whole lines", "a torn one", message)
        for number in torn
    ]
    return [*broken, *_anchor(suite, path), *notes]


def _is_torn(line: dict) -> bool:
    return line.get("event") == "torn"
