"""Numbers are of the last epoch, and nothing was chosen on the test set unless it is marked."""

from typing import Any

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.config.grid import Run

ID = "A21"
SEVERITY = BLOCKING
ALLOWED = {  # (protocol, variant) -> splits on which something may have been chosen
    ("linear", ""): {"none"},
    ("knn", ""): {"none"},
    ("knn", "best_of_k"): {"test"},  # printed with a dagger, never as the headline
    ("transfer", ""): {"val"},
}


def _problem(run: Run, number: Number, record: dict[str, Any]) -> tuple[str, str] | None:
    allowed = ALLOWED.get((number.protocol, number.variant), {"none"})
    if record.get("selected_on") not in allowed:
        return f"selected_on {' or '.join(sorted(allowed))}", f"{record.get('selected_on')}"
    if record.get("split") != "test":
        return "split test", f"{record.get('split')}"
    if record.get("epoch") != run.spec.recipe.epochs:
        return f"epoch {run.spec.recipe.epochs}", f"{record.get('epoch')}"
    if (number.protocol, number.variant) == ("knn", ""):
        found = record.get("selection", {}).get("k")
        if found != run.probe.knn.k:
            return f"k = {run.probe.knn.k}", f"k = {found}"
    return None


def check(suite: Suite) -> list[Finding]:
    """Look at what each record says it was chosen on."""
    return [
        Finding(
            ID,
            BLOCKING,
            str(probe.manifest),
            *problem,
            "the number was chosen otherwise than its column says",
            " ".join(filter(None, number)),
            frozenset({number}),
        )
        for run, probe in suite.probes
        for number, record in suite.results_of(run, probe)
        if (problem := _problem(run, number, record))
    ]
