"""Numbers are of the last epoch, and nothing was chosen on the test set unless it is marked.

Few-shot classifiers were fitted on training images alone, as many as the number is named after.
"""

from typing import Any

import numpy as np

from clsp.audit.arrays import check_npz
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import BROKEN
from clsp.audit.suite import Suite
from clsp.config.floors import Floor
from clsp.config.foreign import Imported
from clsp.config.plan import features_job
from clsp.report.collect import Judged
from clsp.runtime.keys import numpy_stream
from clsp.runtime.manifest import Artefact

ID = "A21"
SEVERITY = BLOCKING
LEVEL = "L0"
ALLOWED = {  # (protocol, variant) -> splits on which something may have been chosen
    ("linear", ""): {"none"},
    ("linear", "best_rate"): {"val"},  # beside the headline, whose rate is fixed
    ("knn", ""): {"none"},
    ("knn", "best_of_k"): {"test"},  # printed with a dagger, never as the headline
    ("transfer", ""): {"val"},
    ("fine_tune", ""): {"val"},
}


def _epoch(judged: Judged) -> int | None:
    """The last epoch of the encoder's pretraining, as far as it is known."""
    if isinstance(judged, Floor):
        return None
    return judged.spec.epochs if isinstance(judged, Imported) else judged.spec.recipe.epochs


def _problem(judged: Judged, number: Number, record: dict[str, Any]) -> tuple[str, str] | None:
    allowed = ALLOWED.get((number.protocol, number.variant), {"none"})
    if record.get("selected_on") not in allowed:
        return f"selected_on {' or '.join(sorted(allowed))}", f"{record.get('selected_on')}"
    if record.get("split") != "test":
        return "split test", f"{record.get('split')}"
    epoch = _epoch(judged)
    if record.get("epoch") != epoch:
        return f"epoch {epoch}", f"{record.get('epoch')}"
    if number.protocol == "linear":
        linear = judged.probe.linear
        headline = number.variant == ""
        grid = linear.grid.learning_rates if linear.grid else ()
        rates = (linear.learning_rate,) if headline else grid
        found = record.get("selection", {}).get("learning_rate")
        if found not in rates:
            return f"learning_rate {' or '.join(map(str, rates))}", f"{found}"
    if number.protocol == "knn":
        known = judged.probe.knn
        wanted, found = (known.best_of if number.variant else (known.k,)), _chosen(record, "k")
        if found not in wanted:
            return f"k = {' or '.join(map(str, wanted))}", f"k = {found}"
    if number.protocol == "transfer":
        spec, found = judged.transfer.logistic, _chosen(record, "log10_lambda")
        grid = np.linspace(spec.low, spec.high, spec.count)
        if not isinstance(found, int | float) or not np.isclose(grid, found, atol=1e-9).any():
            return f"log10_lambda of the grid from {spec.low:g} to {spec.high:g}", f"{found}"
    return None


def _chosen(record: dict[str, Any], name: str) -> Any:
    """What a record says was selected; true and false are no numbers."""
    found = record.get("selection", {}).get(name)
    return None if isinstance(found, bool) else found


def _wanted(labels: np.ndarray, rows: np.ndarray, wanted: float | int, *key: int | str) -> Any:
    """Rows of the training images that the key of a draw gives, class by class."""
    chosen = []
    for label in np.unique(labels[rows]).tolist():
        own = np.flatnonzero(labels[rows] == label)
        count = wanted if isinstance(wanted, int) else max(1, round(wanted * len(own)))
        chosen.append(numpy_stream(*key, label).permutation(own)[:count])
    return rows[np.concatenate(chosen)]


def _draws(
    suite: Suite, judged: Judged, number: Number, record: dict[str, Any], probe: Artefact
) -> tuple[str, str] | None:
    """What is wrong with the training images of a few-shot number."""
    spec, dataset = judged.few_shot.few_shot, suite.dataset(number.task)
    if dataset is None:
        return None  # A08 reports it
    labels, splits = dataset[0], dataset[1]["splits"]
    training = [row for name in ("train", "val") for row in range(*splits[name])]
    path = probe.folder / record["predictions"]["file"]
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as stored:
            drawn = stored[f"{number.task}.{number.variant}.drawn"]
    except (OSError, ValueError, KeyError, *BROKEN) as error:
        return "the rows of the images drawn", str(error)
    if drawn.dtype.kind not in "iu" or drawn.ndim != 2 or len(drawn) != spec.draws:
        return f"{spec.draws} draws", f"{drawn.dtype} {drawn.shape}"
    if not np.isin(drawn, training).all():
        return "training images alone", "images of another split"
    if (labels[drawn] < 0).any():
        return "images with a label", "unlabelled ones"
    if any(len(np.unique(draw)) < len(draw) for draw in drawn):
        return "images drawn without replacement", "an image drawn twice"
    most = spec.points[number.variant]
    counts = [np.bincount(labels[draw]).max() for draw in drawn]
    if isinstance(most, int) and max(counts) > most:
        return f"at most {most} images per class", f"{max(counts)}"
    for place, draw in enumerate(drawn):
        key = (spec.seed, "few-shot", number.task, number.variant, place)
        if not np.array_equal(draw, _wanted(labels, np.array(training), most, *key)):
            return f"the images that the seed gives in draw {place}", "others"
    return None


def _features(suite: Suite) -> list[Finding]:
    """Features say of which epoch the encoder is that gave them."""
    findings = []
    for judged in suite.judged.values():
        job, expected = features_job(judged), _epoch(judged)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        if artefact is None or artefact.predicate["facts"].get("epoch") == expected:
            continue  # A01 and A05 report what is not there
        told = (f"epoch {expected}", f"{artefact.predicate['facts'].get('epoch')}")
        message, numbers = "the features are of another epoch", suite.affected(artefact)
        path = str(artefact.manifest)
        findings.append(Finding(ID, BLOCKING, path, *told, message, judged.slug, numbers))
    return findings


def check(suite: Suite) -> list[Finding]:
    """Look at what each record says it was chosen on."""
    findings = _features(suite)
    for judged, probe in suite.probes:
        for number, record in suite.results_of(judged, probe):
            problem = _problem(judged, number, record)
            if problem is None and number in suite.numbers and number.protocol == "few_shot":
                problem = _draws(suite, judged, number, record, probe)
            if problem:
                message = "the number was chosen otherwise than its column says"
                about = " ".join(filter(None, number))
                told = (str(probe.manifest), *problem, message, about, frozenset({number}))
                findings.append(Finding(ID, BLOCKING, *told))
    return findings
