"""Pretraining took epochs x floor(N / B) steps, each logged once, up to the final checkpoint."""

from typing import Any

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A14"
SEVERITY = BLOCKING
LEVEL = "L0"


def _schedule(records: list[dict[str, Any]], steps: int, per_epoch: int) -> tuple[str, str] | None:
    found = [record.get("step") for record in records]
    if found != list(range(steps)):
        gap = next((n for n, step in enumerate(found) if step != n), len(found))
        return f"steps 0 to {steps - 1}", f"{len(found)} records, wrong from position {gap}"
    for record in records:
        if record.get("epoch") != record["step"] // per_epoch:
            return f"{per_epoch} steps per epoch", f"step {record['step']} in {record.get('epoch')}"
    return None


def _problem(suite: Suite, run: Run, artefact: Artefact) -> tuple[str, str] | None:
    dataset = suite.dataset(run.spec.dataset)
    if dataset is None:
        return "a readable dataset", f"none for {run.spec.dataset}"
    try:
        start, stop = dataset[1]["splits"]["train"]
        records = suite.history(artefact)
    except (OSError, ValueError, KeyError, TypeError, ClspError) as error:
        return "a readable history and card", str(error)
    per_epoch = (stop - start) // run.spec.recipe.batch_size
    steps = per_epoch * run.spec.recipe.epochs
    counted = artefact.predicate.get("counters", {}).get("optimizer_steps")
    if counted != steps:
        return f"{steps} optimizer steps", f"{counted} counted"
    return _schedule(records, steps, per_epoch)


def check(suite: Suite) -> list[Finding]:
    """Compare step counts and logs with the schedule."""
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.folder / "history.jsonl"),
            *problem,
            "training did not follow its schedule",
            run.slug,
            suite.affected(artefact),
        )
        for run, artefact in suite.trainings
        if (problem := _problem(suite, run, artefact))
    ]
