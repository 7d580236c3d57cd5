"""Runs that stand in one table were trained on one class of hardware."""

from clsp.audit.finding import BADGE, Finding
from clsp.audit.suite import Suite
from clsp.runtime.machine import hardware_class

ID = "A32"
SEVERITY = BADGE
LEVEL = "L0"


def check(suite: Suite) -> list[Finding]:
    """Compare what runs of the same dataset and encoder were trained on."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run, artefact in suite.trainings:
        place = str(run.axes["dataset"]), str(run.axes["encoder"])
        kind = hardware_class(artefact.predicate["internalParameters"])
        groups.setdefault(place, {}).setdefault(kind, []).append(run.slug)
    message = "runs that are compared were trained on different hardware; bits may differ"
    return [
        Finding(
            ID,
            BADGE,
            str(suite.results),
            "one class of hardware",
            "; ".join(f"{kind}: {len(runs)}, {runs[0]}" for kind, runs in kinds.items()),
            message,
            " ".join(place),
        )
        for place, kinds in groups.items()
        if len(kinds) > 1
    ]
