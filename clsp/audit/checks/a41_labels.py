"""What pretraining recorded about labels and its recipe is what params.yaml says."""

from typing import Any

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.config.labels import spec_uses_labels
from clsp.runtime.manifest import Artefact

ID = "A41"
SEVERITY = BLOCKING


def _expected(run: Run) -> dict[str, Any]:
    given = spec_uses_labels(run.spec)
    others = len(run.label_users) > sum(given.values())  # a bank or pairs made with labels
    return {
        "uses_labels": {**given, "artefact": others},
        "label_free": not run.label_users,
        "recipe_family": run.spec.recipe.family,
    }


def _problem(run: Run, artefact: Artefact) -> tuple[str, str] | None:
    facts = artefact.predicate["facts"]
    for key, expected in _expected(run).items():
        if key not in facts:
            return f"{key} = {expected}", f"no {key}"
        if facts[key] != expected or type(facts[key]) is not type(expected):
            return f"{key} = {expected}", f"{key} = {facts[key]}"[:120]
    return None


def check(suite: Suite) -> list[Finding]:
    """Compare the facts of every pretraining run with its method, its source and its recipe."""
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.manifest),
            *problem,
            "the record of labels or recipe is not what params.yaml asks for",
            run.slug,
            suite.affected(artefact),
        )
        for run, artefact in suite.trainings
        if (problem := _problem(run, artefact))
    ]
