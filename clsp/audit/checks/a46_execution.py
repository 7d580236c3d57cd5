"""Every run says with which switches it was computed, and they are those of params.yaml."""

from typing import Any

from clsp.audit.finding import BADGE, BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.execution import switches
from clsp.config.grid import Run
from clsp.runtime.manifest import Artefact

ID = "A46"
SEVERITY = BLOCKING
LEVEL = "L0"


def _problem(run: Run, facts: dict[str, Any]) -> tuple[str, str] | None:
    wanted = switches(run.spec.execution).canonical()
    if facts.get("execution") != wanted:
        return f"execution = {wanted}", f"execution = {facts.get('execution')}"[:200]
    count = facts.get("processes")
    if type(count) is not int or count < 1:
        return "a number of processes", f"processes = {count}"[:80]
    norm = run.spec.batch_norm
    if facts.get("batch_norm") != norm:
        return f"batch_norm = {norm}", f"batch_norm = {facts.get('batch_norm')}"[:80]
    return None


def _judge(suite: Suite, run: Run, artefact: Artefact) -> Finding | None:
    facts, place = artefact.predicate["facts"], str(artefact.manifest)
    if problem := _problem(run, facts):
        told = "the record of how the run was computed is not what params.yaml asks for"
        return Finding(ID, BLOCKING, place, *problem, told, run.slug, suite.affected(artefact))
    if facts["processes"] > 1 and facts["batch_norm"] == "per_device":
        told = "batch norm of each process's part: the numbers depend on how many there were"
        found = f"{facts['processes']} processes"
        return Finding(ID, BADGE, place, "one process or synchronised", found, told, run.slug)
    return None


def check(suite: Suite) -> list[Finding]:
    """Compare the switches, processes and kind of batch norm that runs recorded with their spec."""
    judged = [_judge(suite, run, artefact) for run, artefact in suite.trainings]
    return [finding for finding in judged if finding]
