"""Every metric follows from the stored logits: record, metric file and manifest agree with them.

Of few labels, predicted classes are stored, one set per draw of training images, and counts are
pooled over the draws.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import Score, load_predictions, score
from clsp.audit.suite import Suite
from clsp.runtime.canonical import read_json, sha256_array
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A19"
SEVERITY = BLOCKING
LEVEL = "L2"
TOLERANCE = 1e-9  # percent
FILES = {
    "linear": "linear.json",
    "knn": "knn.json",
    "transfer": "transfer.json",
    "few_shot": "few_shot.json",
    "fine_tune": "fine_tune.json",
}
DOWNSTREAM = ("transfer", "few_shot", "fine_tune")  # protocols over many datasets
EXACT = ("correct", "total", "per_class")

Difference = tuple[Path, str, str, str]  # file, expected, found, message


def metric_name(number: Number, metric: str) -> str:
    """Name of a number among the metrics of its manifest and in MLflow."""
    if number.protocol in DOWNSTREAM:
        variant = number.variant.replace("=", "_")  # MLflow allows no equals sign
        return "/".join(filter(None, (number.protocol, number.task, variant)))
    return f"{'_'.join(filter(None, (number.protocol, number.variant)))}/{metric}"


def recompute(suite: Suite, probe: Artefact, record: dict[str, Any]) -> Score:
    """The score of a record from its stored logits or predicted classes.

    Raises:
        OSError, ValueError, KeyError, TypeError, EOFError: If they are not there or malformed.
    """
    names = record["predictions"]
    path = probe.folder / names["file"]
    dataset = suite.dataset(record["task"])
    classes = len(dataset[1]["classes"]) if dataset else None
    return score(load_predictions(path, names), record["metric"], classes)


def _stored_record(probe: Artefact, number: Number) -> tuple[Path, dict[str, Any] | None]:
    path = probe.folder / FILES.get(number.protocol, "")
    for record in read_json(path)["results"]:
        key = (record["task"], record["protocol"], record["variant"])
        if key == number[1:]:
            return path, record
    return path, None


def _against(path: Path, record: dict[str, Any], truth: Score) -> Iterator[Difference]:
    for name in EXACT:
        if record.get(name) != getattr(truth, name):
            expected, found = f"{name}={getattr(truth, name)}", f"{name}={record.get(name)}"
            yield path, expected[:80], found[:80], "a count is not what the logits give"
    value = record.get("value")
    if not isinstance(value, float | int) or abs(value - truth.value) > TOLERANCE:
        yield path, f"value={truth.value}", f"value={value}", "the value is not the logits'"


def _differences(
    suite: Suite, probe: Artefact, number: Number, record: dict[str, Any]
) -> Iterator[Difference]:
    card = (suite.dataset(number.task) or (None, {}))[1]
    if record.get("metric") != card.get("metric"):
        found, expected = f"metric {record.get('metric')}", f"metric {card.get('metric')}"
        yield probe.manifest, expected, found, "the dataset is judged by another metric"
    try:
        truth = recompute(suite, probe, record)
        path, stored = _stored_record(probe, number)
    except (OSError, ValueError, KeyError, TypeError, EOFError, ClspError) as error:
        yield probe.folder, "readable predictions and results", str(error), "cannot be recomputed"
        return
    yield from _against(probe.manifest, record, truth)
    if stored is None:
        yield path, "the result", "none", "the metric file lacks a result of the manifest"
    else:
        yield from _against(path, stored, truth)
        rest = {k: v for k, v in stored.items() if record.get(k) != v and k not in EXACT}
        if rest.keys() - {"value"}:
            yield path, "the manifest's record", str(rest)[:80], "file and manifest disagree"
    name = metric_name(number, record["metric"])
    found = probe.metrics.get(name)
    if not isinstance(found, float | int) or abs(found - truth.value) > TOLERANCE:
        yield probe.manifest, f"{name}={truth.value}", str(found), "the metric is not the logits'"


def _absent(suite: Suite) -> list[Finding]:
    """Numbers that a current probe should hold and does not."""
    there = {n for judged, probe in suite.probes for n, _ in suite.results_of(judged, probe)}
    findings = []
    for _, probe in suite.probes:
        for number in sorted(suite.affected(probe) - there):
            about = " ".join(filter(None, number))
            message = "the probe holds no such result"
            findings.append(
                Finding(
                    ID,
                    BLOCKING,
                    str(probe.manifest),
                    "a result",
                    "none",
                    message,
                    about,
                    frozenset({number}),
                )
            )
    return findings


def _records(probe: Artefact) -> Iterator[Difference]:
    """Where the record holds more than is recomputed: doubled results, metrics of none."""
    results = probe.predicate["facts"].get("results", [])
    keys = [(r["task"], r["protocol"], r["variant"]) for r in results]
    if doubled := sorted({key for key in keys if keys.count(key) > 1}):
        yield probe.manifest, "each result once", " ".join(doubled[0]), "a result is there twice"
    names = {
        metric_name(Number("", *key), r["metric"]) for key, r in zip(keys, results, strict=True)
    }
    if odd := sorted(probe.metrics.keys() - names):
        yield probe.manifest, "metrics of results", odd[0], "no prediction stands behind the metric"
    read = [(r["predictions"]["file"], r["predictions"].get("logits")) for r in results]
    if shared := sorted({str(r) for r in read if r[1] and read.count(r) > 1}):
        yield probe.manifest, "logits of its own", shared[0], "two numbers have the same logits"
    for file in sorted({FILES[key[1]] for key in keys if key[1] in FILES}):
        path = probe.folder / file
        try:
            stored = [(r["task"], r["protocol"], r["variant"]) for r in read_json(path)["results"]]
        except (OSError, ValueError, KeyError, TypeError, ClspError):
            continue  # reported number by number
        expected = [key for key in dict.fromkeys(keys) if FILES.get(key[1]) == file]
        if odd := [k for k in stored if k not in expected or stored.count(k) > 1]:
            told = " ".join(map(str, odd[0]))
            yield path, "the results of the manifest", told, "the metric file holds another result"


def _twins(suite: Suite) -> Iterator[Finding]:
    """Logits of one number that two runs have in common: one of them was judged by another's."""
    seen: dict[tuple[str, ...], str] = {}
    for judged, probe in suite.probes:
        if judged.slug not in suite.runs:
            continue  # of imported encoders several may be one file
        for number, record in suite.results_of(judged, probe):
            names = record["predictions"]
            try:
                logits = load_predictions(probe.folder / names["file"], names).logits
            except (OSError, ValueError, KeyError, TypeError):
                continue  # reported number by number
            if logits is None or number.protocol == "knn":
                continue  # so few neighbours may vote alike
            key = (*number[1:], sha256_array(logits))
            other = seen.setdefault(key, judged.slug)
            if other != judged.slug:
                told = ("logits of its own", f"those of {other}", "two runs have the same logits")
                about = " ".join(filter(None, number))
                both = frozenset({number, number._replace(run=other)})
                path = str(probe.folder / names["file"])
                yield Finding(ID, BLOCKING, path, *told, about, both)


def check(suite: Suite) -> list[Finding]:
    """Recompute every number and compare it wherever it is written."""
    findings = [*_absent(suite), *_twins(suite)]
    for judged, probe in suite.probes:
        findings += [
            Finding(ID, BLOCKING, str(path), *told, judged.slug, suite.affected(probe))
            for path, *told in _records(probe)
        ]
        for number, record in suite.results_of(judged, probe):
            about = " ".join(filter(None, number))
            findings += [
                Finding(
                    ID, BLOCKING, str(path), expected, found, message, about, frozenset({number})
                )
                for path, expected, found, message in _differences(suite, probe, number, record)
            ]
    return findings
