"""Linear probes and kNN, learnt again from stored features, give the recorded numbers.

Probes are learnt again with numpy alone, from the same keys (clsp/audit/relearn.py). So many as fit
a fixed budget are sampled by the nonce; at L3 all of them. Where steps are too long for the
features, or all features lie together, rounding decides what a probe says: one that differs is
learnt once more in double precision, and as many images as turn with the precision are noted, not
held against it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.audit.features import Case, read_case
from clsp.audit.finding import BADGE, BLOCKING, Finding, Number
from clsp.audit.level import L3, reaches
from clsp.audit.recompute import load_predictions
from clsp.audit.relearn import Learnt, relearn_linear, revote
from clsp.audit.suite import Suite
from clsp.config.foreign import Imported
from clsp.config.grid import Run
from clsp.report.collect import Judged
from clsp.runtime.manifest import Artefact

ID = "A23"
SEVERITY = BLOCKING
LEVEL = "L2"
# Percentage points (audit.md A23): for up to ten classes, and for more.
FEW_CLASSES, TOLERANCE, TOLERANCE_OF_MANY = 10, 0.15, 0.3
OTHERWISE = 0.02  # share of images whose class rounding may turn; right and wrong ones alike
LEAST = 2  # images that may differ in any case: on small test sets one image is a large share
BUDGET = 1.2e10  # features read per audit at L2: two encoders of CIFAR-10 at ResNet-18's width


def _cost(judged: Run | Imported, case: Case) -> int:
    return (judged.probe.linear.epochs + len(case.test) // 100) * case.train.size


def _relearn(judged: Run | Imported, case: Case, protocol: str, dtype: type = np.float32) -> Learnt:
    spec, count = judged.probe, len(case.labels)
    train, test = (features.astype(dtype, copy=False) for features in (case.train, case.test))
    if protocol == "knn":
        return revote(spec.knn, train[:count], case.labels, test, case.truth, case.classes)
    fit = {"classes": case.classes, "seed": spec.seed}
    return relearn_linear(spec.linear, train, case.labels, test, case.truth, **fit)[0]


def _turned(judged: Run | Imported, case: Case, protocol: str, now: Learnt) -> int:
    """Test images whose class depends on the precision in which it is computed."""
    with np.errstate(all="ignore"):  # one that diverges may overflow
        precise = _relearn(judged, case, protocol, np.float64)
    return int((precise.guess != now.guess).sum())


def _odd(probe: Artefact, record: dict[str, Any], learnt: Learnt) -> int:
    """Test images of which the stored logits say another class; 0 where none can be read."""
    names = record["predictions"]
    try:
        logits = load_predictions(probe.folder / names["file"], names).logits
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # A19 reports it
    if logits is None or len(logits) != len(learnt.guess):
        return 0
    return int((logits.argmax(axis=1) != learnt.guess).sum())


@dataclass(frozen=True)
class Difference:
    """A number that did not come out again."""

    number: Number
    expected: str
    found: str
    turned: int  # images that rounding alone turns
    severity: str


def _difference(
    judged: Run | Imported, probe: Artefact, case: Case, number: Number, record: dict[str, Any]
) -> Difference | None:
    points = TOLERANCE if case.classes <= FEW_CLASSES else TOLERANCE_OF_MANY
    count = len(case.truth)
    allowed = max(LEAST, points / 100 * count)
    now, held = _relearn(judged, case, number.protocol), record.get("correct")
    if not isinstance(held, int):
        return Difference(number, f"{now.correct} correct", f"{held}", 0, BLOCKING)
    missed, odd = abs(held - now.correct), _odd(probe, record, now)
    if missed <= allowed and odd <= max(allowed, OTHERWISE * count):
        return None
    turned = _turned(judged, case, number.protocol, now)
    unstable = turned > OTHERWISE * count and max(missed, odd) <= turned
    told = (f"{now.correct} correct, give or take {allowed:g}", f"{held}")
    if missed <= allowed:
        told = ("the classes that were learnt again", f"others of {odd} images")
    return Difference(number, *told, turned, BADGE if unstable else BLOCKING)


def _chosen(suite: Suite) -> list[tuple[Judged, Any]]:
    probes = [(j, p) for j, p in suite.probes if p.stage == "probe-encoder"]
    order = suite.chosen("relearn").permutation(len(probes))
    return [probes[number] for number in order]


def _broken(suite: Suite, judged: Run | Imported, error: Exception) -> Finding:
    numbers = frozenset(
        n for n in suite.numbers if n.run == judged.slug and n.protocol in ("linear", "knn")
    )
    told = ("readable features that fit the labels", str(error)[:160])
    message = "the probe cannot be learnt again"
    return Finding(ID, BLOCKING, str(suite.results), *told, message, judged.slug, numbers)


def check(suite: Suite) -> list[Finding]:
    """Learn probes again."""
    findings, left = [], float("inf") if reaches(suite.depth.level, L3) else BUDGET
    for judged, probe in _chosen(suite):
        try:
            case = read_case(suite, judged)
        except (OSError, ValueError, KeyError, TypeError) as error:
            findings.append(_broken(suite, judged, error))
            continue
        if case is None or _cost(judged, case) > left:
            continue
        left -= _cost(judged, case)
        records = {
            number: record
            for number, record in suite.results_of(judged, probe)
            if number.protocol in ("linear", "knn") and not number.variant
        }
        try:
            pairs = [(n, _difference(judged, probe, case, n, r)) for n, r in records.items()]
        except (ValueError, IndexError, TypeError, KeyError) as error:
            findings.append(_broken(suite, judged, error))
            continue
        path = str(case.artefact.folder / "features.safetensors")
        for number, found in pairs:
            if found is None:
                continue
            message = "learnt again from the stored features, the probe gives another number"
            if found.severity == BADGE:
                message += f", as it does in double precision: rounding turns {found.turned} images"
            told = (path, found.expected, found.found, message, " ".join(number))
            findings.append(Finding(ID, found.severity, *told, frozenset({number})))
    return findings
