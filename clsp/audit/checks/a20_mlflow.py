"""MLflow shows the metrics, step logs and settings that the artefacts hold."""

import math
from typing import Any

from clsp.audit import mirror
from clsp.audit.finding import BADGE, BLOCKING, INCOMPLETE, Finding
from clsp.audit.suite import Suite
from clsp.report.records import name_of
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact
from clsp.runtime.tracking import MIRRORED, parameters

ID = "A20"
SEVERITY = BLOCKING
LEVEL = "L2"
TOLERANCE = 1e-9
HINT = "--without-mlflow leaves MLflow out"

Told = tuple[str, str, str]  # expected, found, message


def _finding(suite: Suite, artefact: Artefact, severity: str, *told: str) -> Finding:
    expected, found, message = told
    about = f"{artefact.stage} {name_of(artefact)}"
    numbers = suite.affected(artefact)
    return Finding(ID, severity, str(artefact.manifest), expected, found, message, about, numbers)


def _differs(found: float, expected: float) -> bool:
    return math.isnan(found) or abs(found - expected) > TOLERANCE * max(1.0, abs(expected))


def _metrics(artefact: Artefact, run: mirror.MirroredRun) -> list[Told]:
    told = []
    for name, value in artefact.metrics.items():
        held = run.values.get(name, [])
        wrong = [v for v in held if value is None or _differs(v, value)]
        if wrong or not held:
            found = f"{name}={wrong[0]}" if wrong else f"no {name}"
            told.append((f"{name}={value}", found, "MLflow shows another value than the manifest"))
    if odd := sorted(run.values.keys() - artefact.metrics.keys()):
        held = f"{odd[0]}={run.values[odd[0]][0]}"
        told.append(("metrics of the manifest", held, "MLflow shows a metric that nobody reported"))
    return told


def _points(records: list[dict[str, Any]], run: mirror.MirroredRun) -> list[Told]:
    """The first point that differs from the step log, and the first that is not there.

    The mirror shows the last record of every epoch. After an interruption it may show more, and
    each of them must be in the log too.
    """
    by_step = {record["step"]: record for record in records}
    last = {record.get("epoch", record["step"]): record for record in records}
    for (name, step), held in run.points.items():
        logged = by_step.get(step, {}).get(name)
        wrong = [value for value in held if logged is None or _differs(value, logged)]
        if wrong:
            told = (f"{name}={logged} in step {step}", f"{wrong[0]}")
            return [(*told, "MLflow shows another curve than the step log")]
    for record in last.values():
        for name in record.keys() - {"step"}:
            if (name, record["step"]) not in run.points:
                told = (f"{name} of step {record['step']}", "no such point")
                return [(*told, "MLflow shows another curve than the step log")]
    return []


def _params(artefact: Artefact, run: mirror.MirroredRun) -> list[Told]:
    expected = parameters(artefact.spec)
    message = "MLflow shows other settings than the manifest"
    return [
        (f"{key} = {expected.get(key)}"[:120], f"{key} = {run.params.get(key)}"[:120], message)
        for key in sorted(expected.keys() | run.params.keys())
        if expected.get(key) != run.params.get(key)
    ][:1]


def _compare(suite: Suite, artefact: Artefact, run: mirror.MirroredRun) -> list[Finding]:
    told: list[Told] = []
    if run.deleted or run.status != "FINISHED":
        state = "deleted" if run.deleted else run.status
        told.append(("FINISHED", state, "the mirrored run did not end well or was deleted"))
    told += _metrics(artefact, run) + _params(artefact, run)
    if "history.jsonl" in artefact.subjects:
        try:
            told += _points(suite.history(artefact), run)
        except (OSError, ValueError) as error:
            told.append(("a readable step log", str(error), "MLflow's curve cannot be compared"))
    return [_finding(suite, artefact, BLOCKING, *each) for each in told]


def _without_store(suite: Suite) -> list[Finding]:
    message = f"the mirror is not here, so it cannot be compared ({HINT})"
    told = ("an MLflow store", suite.mlflow or "none", message)
    return [_finding(suite, artefact, INCOMPLETE, *told) for artefact in suite.tracked]


def _absent(suite: Suite, artefact: Artefact, foreign: bool) -> Finding:
    """A job whose mirror was out of reach is not compared; a run that is gone was taken away."""
    identifier = artefact.predicate.get("mlflow_run_id")
    if not identifier:
        message = f"the store could not be reached when the job ran ({HINT})"
        return _finding(suite, artefact, INCOMPLETE, "a mirrored run", "none", message)
    told = (f"MLflow run {identifier}", "no such run")
    if foreign:
        message = f"the store here holds none of the runs, so it is another one ({HINT})"
        return _finding(suite, artefact, INCOMPLETE, *told, message)
    return _finding(suite, artefact, BLOCKING, *told, "MLflow has lost this run")


def _untracked(suite: Suite) -> list[Finding]:
    """Notes jobs that say they were not mirrored where others were: nothing there is compared."""
    off = [a for _, a in suite.in_use if a.stage in MIRRORED and not a.predicate.get("tracking")]
    if not off or not suite.tracked:
        return []
    told = ("all or none mirrored", f"{len(off)} not", "some jobs were made without MLflow")
    return [Finding(ID, BADGE, str(off[0].manifest), *told)]


def check(suite: Suite) -> list[Finding]:
    """Compare what was mirrored; an artefact made without tracking has no mirror."""
    if not suite.compare_mlflow or not suite.tracked:
        return []
    return [*_mirrored(suite), *_untracked(suite)]


def _mirrored(suite: Suite) -> list[Finding]:
    if suite.mlflow is None or not mirror.exists(suite.mlflow):
        return _without_store(suite)
    identifiers = {a.manifest: a.predicate.get("mlflow_run_id") for a in suite.tracked}
    try:
        runs = mirror.read_runs(suite.mlflow, {i for i in identifiers.values() if i})
    except ClspError as error:
        told = ("a readable MLflow store", suite.mlflow, str(error))
        return [_finding(suite, artefact, BLOCKING, *told) for artefact in suite.tracked]
    findings = []
    for artefact in suite.tracked:
        run = runs.get(identifiers[artefact.manifest] or "")
        if run is None:
            findings.append(_absent(suite, artefact, foreign=not runs))
        else:
            findings += _compare(suite, artefact, run)
    return findings
