"""Trained encoders are better than an untrained one, judged by the same code, where that was run.

The control is the floor "random" of `evaluation.transfer.floors`: the same weights before the first
step. A probe on shuffled labels is not made; A23 learns every sampled probe again instead.
"""

from statistics import fmean

from clsp.audit.finding import BADGE, BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.config.floors import Floor
from clsp.config.grid import Run

ID = "A18"
SEVERITY = BLOCKING
LEVEL = "L2"
ABOVE = 5.0  # percentage points over all transfer datasets (audit.md A18)


def _transfers(suite: Suite) -> dict[str, dict[Number, float]]:
    found: dict[str, dict[Number, float]] = {}
    for judged, probe in suite.probes:
        for number, record in suite.results_of(judged, probe):
            if number.protocol == "transfer" and isinstance(record.get("value"), int | float):
                found.setdefault(judged.slug, {})[number] = float(record["value"])
    return found


def _floors(suite: Suite) -> dict[tuple[str, str, int], Floor]:
    random = [f for f in suite.floors.values() if f.features.source == "random"]
    return {(floor.dataset, floor.encoder, floor.seed): floor for floor in random}


def _beaten(suite: Suite, run: Run, values: dict, floor: Floor, least: dict) -> Finding | None:
    by_task = {number.task: value for number, value in least.items()}
    shared = [n for n in values if n.task in by_task]
    if not shared:
        return None
    own, other = fmean(values[n] for n in shared), fmean(by_task[n.task] for n in shared)
    if own - other >= ABOVE:
        return None
    # A demonstration trains too little to be held to it: there it is worth knowing only.
    severity = BADGE if suite.params.demonstration else BLOCKING
    return Finding(
        ID,
        severity,
        str(suite.results),
        f"at least {ABOVE:g} points over {floor.slug}'s {other:.2f}",
        f"{own:.2f}, mean of {len(shared)} datasets",
        "the encoder is hardly better than an untrained one",
        run.slug,
        frozenset(shared),
    )


def check(suite: Suite) -> list[Finding]:
    """Compare every run with the untrained encoder of its seed."""
    values, floors, findings = _transfers(suite), _floors(suite), []
    for run in suite.runs.values():
        place = str(run.axes["dataset"]), str(run.axes["encoder"]), int(run.axes["seed"])
        floor = floors.get(place)
        if floor and run.slug in values and floor.slug in values:
            found = _beaten(suite, run, values[run.slug], floor, values[floor.slug])
            findings += [found] if found else []
    return findings
