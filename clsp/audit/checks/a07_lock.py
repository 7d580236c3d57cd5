"""Everything was made with one set of locked packages, the one that lies here now."""

from clsp.audit.finding import BADGE, Finding
from clsp.audit.suite import REPORTS, Suite
from clsp.report.records import name_of
from clsp.runtime.source import lock_digest

ID = "A07"
SEVERITY = BADGE
LEVEL = "L0"


def check(suite: Suite) -> list[Finding]:
    """Compare the hashes of requirements.lock that jobs recorded."""
    found: dict[str, list[str]] = {}
    for _, artefact in suite.in_use:
        if artefact.stage not in REPORTS:
            lock = artefact.predicate["internalParameters"].get("lock_sha256")
            found.setdefault(str(lock), []).append(f"{artefact.stage} {name_of(artefact)}")
    findings = []
    if len(found) > 1 or "None" in found:
        told = "; ".join(f"{lock[:12]} of {len(made)}, {made[0]}" for lock, made in found.items())
        message = "artefacts were made with different versions of packages"
        findings.append(Finding(ID, BADGE, str(suite.results), "one lock file", told, message))
    here = lock_digest()
    if here is not None and found and here not in found:
        told = ", ".join(lock[:12] for lock in found)
        message = "the lock file here is another than that of the results"
        findings.append(Finding(ID, BADGE, "requirements.lock", here[:12], told, message))
    return findings
