"""Every artefact was made by the code that is here now, from a known and clean commit."""

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.plan import Job
from clsp.runtime.manifest import Artefact

ID = "A06"
SEVERITY = BLOCKING
LEVEL = "L0"


def _code(suite: Suite, job: Job, artefact: Artefact) -> list[Finding]:
    found = artefact.predicate["internalParameters"].get("code")
    if found == job.code:
        return []
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.manifest),
            f"code {job.code}",
            f"code {found or 'not recorded'}",
            "was made by other code than is here now",
            f"{job.stage} {job.name}",
            suite.affected(artefact),
            suite.cells_of(artefact),
        )
    ]


def _commits(artefacts: list[Artefact]) -> list[Finding]:
    """One badge per state of the source tree that is not a clean, known commit."""
    states: dict[str, list[Artefact]] = {}
    for artefact in artefacts:
        inside = artefact.predicate["internalParameters"]
        commit = inside.get("git_commit")
        if commit is None:
            states.setdefault("no commit recorded", []).append(artefact)
        elif inside.get("dirty") is not False:  # not recorded is no proof
            changed = str(inside.get("diff_sha256"))[:12]
            states.setdefault(f"commit {commit[:12]} with changes {changed}", []).append(artefact)
    return [
        Finding(
            ID,
            BADGE,
            str(made[0].manifest),
            "a clean commit",
            state,
            f"{len(made)} artefact(s) were made from a state that git cannot give back",
        )
        for state, made in states.items()
    ]


def check(suite: Suite) -> list[Finding]:
    """Compare code digests with the present code, and note commits that are unknown or dirty."""
    stale = [f for job, artefact in suite.in_use for f in _code(suite, job, artefact)]
    return stale + _commits([artefact for _, artefact in suite.in_use])
