"""Rows of the authors' own recipe end within the band of the authors' curve, on neither side of it.

RCP-LOW is noted. RCP-HIGH blocks the row until reports/spec/explanations.yaml says why: leakage,
label-conditioned candidates and selection on test images all look like this. Rows of other recipes
have no reference and are not judged.
"""

from collections.abc import Iterator

from clsp.audit.checks.a26_statistics import recomputed
from clsp.audit.finding import BADGE, BLOCKING, Finding, Number
from clsp.audit.suite import Suite
from clsp.config.convergence import (
    Curve,
    curve_of,
    read_curves,
    read_explanations,
)
from clsp.config.grid import Run

ID = "A27"
SEVERITY = BLOCKING
LOW, HIGH = "RCP-LOW", "RCP-HIGH"


def reference_rows(suite: Suite) -> Iterator[tuple[list[Run], Curve]]:
    """The runs of every row whose recipe is the authors', with their curve."""
    curves = read_curves(suite.expectations / "official_curves.json")
    rows: dict[tuple[str, ...], list[Run]] = {}
    for run in suite.runs.values():
        if not run.variation and not run.label_users:
            place = (str(run.axes["dataset"]), str(run.axes["encoder"]), run.label)
            rows.setdefault(place, []).append(run)
    for runs in rows.values():
        if curve := curve_of(curves, suite.params, runs[0].spec):
            yield runs, curve


def _judge(suite: Suite, runs: list[Run], curve: Curve) -> Finding | None:
    truth, first = recomputed(suite), runs[0]
    if first.judged_on != first.spec.dataset:
        return None
    numbers = [Number(run.slug, first.judged_on, "linear", "") for run in runs]
    values = [truth[number] for number in numbers if number in truth]
    if not values:
        return None
    mean = sum(values) / len(values)
    epoch, reference = curve.accuracy[-1]
    tau = read_curves(suite.expectations / "official_curves.json").tau(curve.dataset, epoch)
    place = str(suite.reports / "frame.csv")
    expected = f"{reference - tau:.2f} to {reference + tau:.2f} at epoch {epoch:g}"
    found, subject = f"{mean:.2f} over {len(values)} seeds", f"{first.label} on {curve.dataset}"
    if abs(mean - reference) <= tau:
        return None
    if mean < reference:
        told = f"{LOW}: below the band of the authors' curve"
        return Finding(ID, BADGE, place, expected, found, told, subject)
    explanations = read_explanations(suite.expectations / "explanations.yaml")
    if why := explanations.why(curve, first.label, mean):
        told = f"{HIGH}, explained: {why}"
        return Finding(ID, BADGE, place, expected, found, told, subject)
    told = f"{HIGH}: above the band of the authors' curve, and no explanation is given"
    return Finding(ID, BLOCKING, place, expected, found, told, subject, frozenset(numbers))


def check(suite: Suite) -> list[Finding]:
    """Compare means over seeds of the last epoch with the last point of the authors' curves."""
    judged = (_judge(suite, runs, curve) for runs, curve in reference_rows(suite))
    return [finding for finding in judged if finding]
