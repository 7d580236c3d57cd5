"""Runs that say they saw no label leave the same weights when labels are permuted (L3).

The first two steps are repeated twice, once with the labels of the dataset in another order.
"""

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.replayed import chosen_runs, first_steps
from clsp.audit.suite import Suite
from clsp.config.plan import pretrain_job

ID = "A12"
SEVERITY = BLOCKING
LEVEL = "L3"


def check(suite: Suite) -> list[Finding]:
    """Compare weights after two steps with true and with permuted labels."""
    findings = []
    for run in chosen_runs(suite):
        answer, job = first_steps(suite, run), pretrain_job(run)
        if not isinstance(answer, dict) or run.label_users:
            continue  # A11 reports that it could not be done; runs with labels say so (A41)
        own, permuted = answer.get("digest"), answer.get("permuted_digest")
        if own is None or own != permuted:
            artefact = suite.records.current(job.stage, job.name, job.spec)
            message = "labels change the weights of a run that says it saw none"
            told = (f"weights {own}"[:24], f"{permuted}"[:16], message, run.slug)
            numbers = suite.affected(artefact)
            findings.append(Finding(ID, BLOCKING, str(artefact.folder), *told, numbers))
    return findings
