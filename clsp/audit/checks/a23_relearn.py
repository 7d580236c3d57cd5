"""Linear probes and kNN, learnt again from stored features, give the recorded numbers.

Probes are learnt again with numpy alone, from the same keys (clsp/audit/relearn.py). So many as fit
a fixed budget are sampled by the nonce; at L3 all of them.
"""

from collections.abc import Iterator
from typing import Any

from clsp.audit.features import Case, read_case
from clsp.audit.finding import BLOCKING, Finding, Number
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


def _relearn(judged: Run | Imported, case: Case, protocol: str) -> Learnt:
    spec, count = judged.probe, len(case.labels)
    if protocol == "knn":
        plain = case.train[:count]
        return revote(spec.knn, plain, case.labels, case.test, case.truth, case.classes)
    fit = {"classes": case.classes, "seed": spec.seed}
    return relearn_linear(spec.linear, case.train, case.labels, case.test, case.truth, **fit)[0]


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


def _differences(
    judged: Run | Imported, probe: Artefact, case: Case, records: dict[Number, dict[str, Any]]
) -> Iterator[tuple[Number, str, str]]:
    points = TOLERANCE if case.classes <= FEW_CLASSES else TOLERANCE_OF_MANY
    allowed = max(LEAST, points / 100 * len(case.truth))
    for number, record in records.items():
        now = _relearn(judged, case, number.protocol)
        if (
            not isinstance(record.get("correct"), int)
            or abs(record["correct"] - now.correct) > allowed
        ):
            told = f"{now.correct} correct, give or take {allowed:g}", f"{record.get('correct')}"
            yield number, *told
        elif (odd := _odd(probe, record, now)) > max(allowed, OTHERWISE * len(case.truth)):
            yield number, "the classes that were learnt again", f"others of {odd} images"


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
            found = list(_differences(judged, probe, case, records))
        except (ValueError, IndexError, TypeError, KeyError) as error:
            findings.append(_broken(suite, judged, error))
            continue
        message = "learnt again from the stored features, the probe gives another number"
        path = str(case.artefact.folder / "features.safetensors")
        findings += [
            Finding(ID, BLOCKING, path, *told, message, " ".join(number), frozenset({number}))
            for number, *told in found
        ]
    return findings
