"""Replicates have different seeds, and really started from different weights and orders."""

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.runtime.manifest import Artefact

ID = "A13"
SEVERITY = BLOCKING


def _evidence(artefact: Artefact) -> dict[str, str | None]:
    facts = artefact.predicate.get("facts", {})
    return {
        "seed": str(artefact.spec.get("seed")),
        "initial weights": facts.get("init_sha256"),
        "first batch": facts.get("first_batch_sha256"),
    }


def _numbers(suite: Suite, runs: list[Run]) -> frozenset[Number]:
    slugs = {run.slug for run in runs}
    return frozenset(number for number in suite.numbers if number.run in slugs)


def _compare(suite: Suite, group: list[tuple[Run, Artefact]]) -> list[Finding]:
    findings = []
    for what in ("seed", "initial weights", "first batch"):
        seen: dict[str, tuple[Run, Artefact]] = {}
        for run, artefact in group:
            value = _evidence(artefact)[what]
            if value in (None, "None"):
                problem, runs = "not recorded", [run]
            elif value in seen:
                problem, runs = f"the same as in {seen[value][0].slug}", [run, seen[value][0]]
            else:
                seen[value] = (run, artefact)
                continue
            findings.append(
                Finding(
                    ID,
                    BLOCKING,
                    str(artefact.manifest),
                    f"{what} of its own",
                    problem,
                    "replicates must differ in everything that is drawn",
                    run.slug,
                    _numbers(suite, runs),
                )
            )
    return findings


def check(suite: Suite) -> list[Finding]:
    """Compare the runs that differ in nothing but their seed."""
    groups: dict[tuple, list[tuple[Run, Artefact]]] = {}
    for run, artefact in suite.trainings:
        key = (*(value for axis, value in run.axes.items() if axis != "seed"), run.label)
        groups.setdefault(key, []).append((run, artefact))
    return [finding for group in groups.values() for finding in _compare(suite, group)]
