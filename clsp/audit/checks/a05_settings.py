"""Every artefact was made with the settings that params.yaml resolves to now."""

from typing import Any

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import REPORTS, Suite
from clsp.config.plan import Job
from clsp.runtime.canonical import canonical_json, sha256_json
from clsp.runtime.manifest import Artefact

ID = "A05"
SEVERITY = BLOCKING
LEVEL = "L0"
BEFORE = ("check-data",)  # stands before training; no number is read from it


def _written(value: Any) -> str:
    """A setting as it is hashed: there true is not 1, and 1.0 is not 1."""
    return canonical_json(value)


def _difference(found: Any, expected: Any, path: str = "") -> tuple[str, Any, Any]:
    """The first place where two settings differ: key path, found, expected."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(set(found) | set(expected)):
            if _written(found.get(key)) != _written(expected.get(key)):
                below = f"{path}.{key}" if path else key
                return _difference(found.get(key), expected.get(key), below)
    return path, found, expected


def _stale(suite: Suite, job: Job, artefact: Artefact) -> list[Finding]:
    findings = []
    about = f"{job.stage} {job.name}"
    scope = {"numbers": suite.affected(artefact), "cells": suite.cells_of(artefact)}
    recorded = artefact.predicate["externalParameters"].get("spec_sha256")
    actual = sha256_json(artefact.spec)
    if recorded != actual:
        message = "the settings recorded do not have the recorded hash"
        findings.append(
            Finding(
                ID,
                BLOCKING,
                str(artefact.manifest),
                str(recorded)[:16],
                actual[:16],
                message,
                about,
                **scope,
            )
        )
    if _written(artefact.spec) != _written(job.spec):
        key, found, expected = _difference(artefact.spec, job.spec)
        findings.append(
            Finding(
                ID,
                BLOCKING,
                str(artefact.manifest),
                f"{key} = {expected}"[:120],
                f"{key} = {found}"[:120],
                "was made with other settings than params.yaml asks for now",
                about,
                **scope,
            )
        )
    return findings


def _superseded(suite: Suite) -> list[Finding]:
    wanted = {artefact.manifest for _, artefact in suite.in_use}
    message = "no run of params.yaml needs this artefact; it is not judged"
    findings = [
        Finding(ID, BADGE, str(a.manifest), "an artefact in use", "superseded", message)
        for a in suite.records
        if a.manifest not in wanted and a.stage not in BEFORE
    ]
    return findings + [
        Finding(ID, BADGE, str(a.manifest), "a part of the report", "superseded", message)
        for a in suite.report_records
        if a.manifest not in wanted and a.stage in REPORTS
    ]


def check(suite: Suite) -> list[Finding]:
    """Compare the settings in manifests with the expected ones."""
    stale = [f for job, artefact in suite.in_use for f in _stale(suite, job, artefact)]
    return stale + _superseded(suite)
