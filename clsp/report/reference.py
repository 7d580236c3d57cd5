"""Our rows against the authors' learning curves at the last epoch, as the page tells it.

The audit compares on its own (A27); what is above the band blocks there until it is explained.
"""

from dataclasses import dataclass
from pathlib import Path

from clsp.config.convergence import (
    Curve,
    Curves,
    Explanations,
    curve_of,
    read_curves,
    read_explanations,
)
from clsp.config.grid import Run
from clsp.config.schema import Params
from clsp.report.collect import Name, ordinary_runs, row_name
from clsp.report.statistics import mean_and_std

CURVES, EXPLANATIONS = "official_curves.json", "explanations.yaml"
WITHIN, LOW, HIGH, EXPLAINED = "within the band", "RCP-LOW", "RCP-HIGH", "RCP-HIGH, explained"
UNKNOWN = "not run"
ABOUT = {
    WITHIN: "ends within the band of the authors' curve",
    LOW: "ends below the band of the authors' curve; noted",
    HIGH: "ends above the band of the authors' curve, and no explanation is given; the audit "
    "blocks it, because leakage, label-conditioned candidates and selection on test images all "
    "look like this",
    EXPLAINED: "ends above the band of the authors' curve; an explanation is given",
    UNKNOWN: "follows a recipe of the authors' curves, but no number is there",
}


@dataclass(frozen=True)
class Comparison:
    """One row whose recipe is the authors'."""

    name: Name
    mean: float | None
    n: int
    theirs: float
    epoch: float
    low: float
    high: float
    state: str
    why: str  # of an explanation, else empty

    @property
    def about(self) -> str:
        """The state in words."""
        return ABOUT[self.state]


def _compare(
    name: Name, curve: Curve, values: list[float], curves: Curves, told: Explanations
) -> Comparison:
    mean, _ = mean_and_std(values)
    epoch, theirs = curve.accuracy[-1]
    tau = curves.tau(curve.dataset, epoch)
    state, why = UNKNOWN, ""
    if mean is not None:
        state = WITHIN if abs(mean - theirs) <= tau else LOW if mean < theirs else HIGH
    if mean is not None and state == HIGH and (why := told.why(curve, name[2], mean)):
        state = EXPLAINED
    return Comparison(
        name, mean, len(values), theirs, epoch, theirs - tau, theirs + tau, state, why
    )


def build_reference(
    params: Params,
    numbers: dict[tuple[str, str, str, str], float],
    expectations: dict[str, Path],
) -> list[Comparison]:
    """Every row whose recipe is the authors', beside the end of their curve.

    Args:
        params: The validated parameters.
        numbers: By slug, task, protocol and variant.
        expectations: official_curves.json and explanations.yaml by name.
    """
    curves = read_curves(expectations[CURVES])
    told = read_explanations(expectations[EXPLANATIONS])
    rows: dict[Name, list[Run]] = {}
    for run in ordinary_runs(params):
        if not run.label_users and run.judged_on == run.spec.dataset:
            rows.setdefault(row_name(run), []).append(run)
    found = []
    for name, runs in rows.items():
        if curve := curve_of(curves, params, runs[0].spec):
            keys = [(run.slug, run.judged_on, "linear", "") for run in runs]
            values = [numbers[key] for key in keys if key in numbers]
            found.append(_compare(name, curve, values, curves, told))
    return found
