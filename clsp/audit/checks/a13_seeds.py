"""Replicates have different seeds, and really started from different weights and orders.

No two runs, of whatever settings, ended in the same weights: one checkpoint stands in one row.
"""

from collections.abc import Iterator, Mapping

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.runtime.manifest import Artefact

ID = "A13"
SEVERITY = BLOCKING
LEVEL = "L0"


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


def twins(digests: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Names that have the digest of an earlier name, with that one; names without one are left out.

    Args:
        digests: Name -> digest of the weights.
    """
    seen: dict[str, str] = {}
    for name, digest in digests.items():
        if digest is not None and seen.setdefault(digest, name) != name:
            yield name, seen[digest]


def _twins(suite: Suite) -> list[Finding]:
    made = {run.slug: (run, artefact) for run, artefact in suite.trainings}
    ended = {s: a.predicate.get("facts", {}).get("final_sha256") for s, (_, a) in made.items()}
    findings = []
    for slug, other in twins(ended):
        told = ("weights of its own", f"the same as in {other}")
        message = "one checkpoint cannot be the end of two runs"
        numbers = _numbers(suite, [made[slug][0], made[other][0]])
        path = str(made[slug][1].manifest)
        findings.append(Finding(ID, BLOCKING, path, *told, message, slug, numbers))
    return findings


def check(suite: Suite) -> list[Finding]:
    """Compare the runs that differ in nothing but their seed, and the ends of all runs."""
    groups: dict[tuple, list[tuple[Run, Artefact]]] = {}
    for run, artefact in suite.trainings:
        key = (*(value for axis, value in run.axes.items() if axis != "seed"), run.label)
        groups.setdefault(key, []).append((run, artefact))
    compared = [finding for group in groups.values() for finding in _compare(suite, group)]
    return compared + _twins(suite)
