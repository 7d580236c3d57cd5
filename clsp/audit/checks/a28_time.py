"""Times make sense: nothing ended before it began or lies ahead, no step was impossibly fast.

Durations are those of a clock that nobody can set. Dates come from one that can be, so that a date
that makes no sense is only noted.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.report.records import name_of
from clsp.runtime.manifest import Artefact

ID = "A28"
SEVERITY = BLOCKING
LEVEL = "L0"
AHEAD = timedelta(minutes=5)
ROUNDING = 2.0  # seconds; dates are written in whole ones
SLACK = 0.02  # of the duration, by which the two clocks may differ
# Seconds that no optimizer step can fall below: the launches of a forward and a backward pass alone
# take longer on every device. A log of faster steps was not made by the run it stands beside.
FASTEST = 1e-4


def _date(text: Any) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo else None


def _dates(details: dict[str, Any], seconds: float) -> tuple[str, str] | None:
    started, finished = _date(details.get("started")), _date(details.get("finished"))
    if started is None or finished is None:
        return "dates with their offset", f"{details.get('started')}, {details.get('finished')}"
    if max(started, finished) > datetime.now(UTC) + AHEAD:
        return "dates that have passed", f"{max(started, finished).isoformat()}"
    passed = (finished - started).total_seconds()
    if abs(passed - seconds) > ROUNDING + SLACK * seconds:
        return f"{seconds:g} s between the dates", f"{passed:g} s"
    return None


def _spent(suite: Suite, artefact: Artefact) -> float | None:
    """Seconds of all attempts at an artefact; None if one of them is not known."""
    if suite.ledger is None:
        return None
    lines, uid = suite.ledger.lines, artefact.predicate.get("run_uid")
    own = next((x for x in lines if x.get("attempt") == uid and x.get("event") == "start"), None)
    if own is None:
        return None
    attempts = {
        x.get("attempt")
        for x in lines
        if x.get("event") == "start" and x.get("manifest") == own.get("manifest")
    }
    ends = [x for x in lines if x.get("event") == "end" and x.get("attempt") in attempts]
    spent = [x.get("seconds") for x in ends]
    if len(ends) < len(attempts) or not all(isinstance(s, int | float) for s in spent):
        return None
    return math.fsum(spent)


def _impossible(suite: Suite, artefact: Artefact, seconds: Any) -> tuple[str, str] | None:
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        return "a duration", f"{seconds}"
    counters = artefact.predicate["counters"]
    steps = counters.get("optimizer_steps", counters.get("steps", 0))
    spent = _spent(suite, artefact)
    if spent is not None and spent < seconds - ROUNDING:
        return f"at least {seconds:g} s in the ledger", f"{spent:g} s"
    if spent is not None and steps and spent < steps * FASTEST:
        return f"at least {steps * FASTEST:g} s for {steps} steps", f"{spent:g} s"
    return None


def check(suite: Suite) -> list[Finding]:
    """Look at dates and durations of everything in use."""
    findings = []
    for artefact in {a.manifest: a for _, a in suite.in_use}.values():
        details = artefact.predicate["runDetails"]
        seconds, path = details.get("seconds"), str(artefact.manifest)
        about = f"{artefact.stage} {name_of(artefact)}"
        if problem := _impossible(suite, artefact, seconds):
            message, scope = "the duration is impossible", suite.affected(artefact)
            told = (path, *problem, message, about, scope, suite.cells_of(artefact))
            findings.append(Finding(ID, BLOCKING, *told))
        elif problem := _dates(details, seconds):
            message = "the dates make no sense; the clock was set, or somebody wrote them"
            findings.append(Finding(ID, BADGE, path, *problem, message, about))
    return findings
