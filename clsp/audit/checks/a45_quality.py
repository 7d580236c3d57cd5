"""Quality figures follow from what was stored of each candidate, and that from bank and dataset.

Every number is computed again with numpy alone, the Frechet distance from means and covariances.
Pixels of candidates are compared again with all that was stored of them, and for some anchors all
training images are searched for the nearest. Which anchors these are follows from the file itself,
so that nobody can edit around them. Features are not stored: cosines must only fit each other, and
means and covariances of training images must be the same for every bank. FID is Inception's alone.
"""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.quality import Arrays, load_measured, recompute_numbers, size_of_moments
from clsp.audit.quality_pixels import Problem, compare, compared, searched
from clsp.audit.suite import Suite
from clsp.config.measured import measured_banks, quality_spec
from clsp.config.plan import bank_job, encoder_job, prepare_job, quality_job
from clsp.config.quality import INCEPTION, PROTOCOL, QualitySpec
from clsp.data.prepared import open_prepared, window
from clsp.report.cells import read_cells
from clsp.report.quality import variant_of
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A45"
SEVERITY = BLOCKING
LEVEL = "L2"
TOLERANCE = 1e-9  # of a number, relative and absolute
DISTANCE = 1e-6  # of a Frechet distance, on the scale of its covariances: roots of rounded zeros
PRINTED = 1e-6  # a table holds six digits
SPOTS = 3  # anchors for whose candidates all training images are searched again
COMPARED = 1024  # anchors whose candidates are compared again with the images on record
FITTING = 1e-6  # of a cosine: the nearest is found in float32
ALIKE = 1e-3  # of a covariance, relative: devices differ
REFERENCE = "6726825d"  # how the sha256 of the published Inception weights begins
FIGURES = ("quality_interpolation", "quality_candidates", "quality_steps")
UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, ClspError)

Truth = dict[tuple[str, int], dict[str, float]]  # of bank and k


def _near(found: Any, expected: float, scale: float = 0.0) -> bool:
    good = type(found) in (int, float)
    return good and abs(found - expected) <= TOLERANCE * (1 + abs(expected)) + scale


def _numbers(
    artefact: Artefact, spec: QualitySpec, found: Arrays, truths: Truth
) -> Iterator[tuple[int, str, Problem]]:
    """Counts and numbers in quality.json and manifest that are not what the arrays give.

    Yields:
        k, the number's name or nothing for counts, and the problem.
    """
    results = {r["k"]: r for r in read_json(artefact.folder / "quality.json")["quality"]}
    facts = {entry["k"]: entry for entry in artefact.predicate["facts"]["quality"]}
    total = len(found["covariance.training"])
    for k in spec.candidates:
        truth = truths[spec.bank, k]
        told = results[k]["numbers"]
        held = {
            name.removeprefix(f"quality/k{k}/"): value
            for name, value in artefact.metrics.items()
            if name.startswith(f"quality/k{k}/")
        }
        counts = {"candidates": spec.anchors * k}
        for where, entry in (("quality.json", results[k]), ("the manifest", facts[k])):
            counts["training"] = artefact.predicate["counters"]["training_images"]
            few = min(counts.values()) <= total
            expected = {"images": counts, "singular": few}
            if any(entry.get(key) != value for key, value in expected.items()):
                shown = {key: entry.get(key) for key in expected}
                yield k, "", (f"{expected} in {where}", f"{shown}")
        for name in sorted(truth.keys() | told.keys() | held.keys()):
            scale = DISTANCE * size_of_moments(found, k) if name == spec.distance else 0.0
            for where, values in (("quality.json", told), ("the manifest", held)):
                right = truth.get(name)
                if right is None or not _near(values.get(name), right, scale):
                    yield k, name, (f"{name} = {right}", f"{values.get(name)} in {where}")


def _cosines(found: Arrays) -> Iterator[Problem]:
    """Cosines on record that cannot all be true."""
    near, own = found["nearest_cosine"], found["own_cosine"]
    for name in ("own", "random", "nearest", "neighbour", "pair"):
        if (np.abs(found[f"{name}_cosine"]) > 1 + FITTING).any():
            yield f"{name}_cosine within -1 and 1", "others"
    if (np.maximum(own, found["random_cosine"]) > near + FITTING).any():
        yield "no training image with a higher cosine than nearest_cosine", "one"
    mine = found["nearest_feature"] == found["rows"].reshape(-1, 1)
    if (np.abs(near - own)[mine] > FITTING).any():
        yield "nearest_cosine = own_cosine where the anchor is nearest", "others"
    rows, first, place = np.unique(found["nearest_feature"], return_index=True, return_inverse=True)
    beside = found["neighbour_cosine"].reshape(-1)
    if (np.abs(beside - beside[first][place.reshape(-1)]) > FITTING).any():
        yield f"one neighbour_cosine for each of {len(rows)} images", "several"


def _training(suite: Suite, found: dict[str, Arrays]) -> Iterator[tuple[str, Problem]]:
    """Banks of one dataset whose training images have other features than those of the first."""
    firsts: dict[str, str] = {}
    for bank, arrays in found.items():
        first = firsts.setdefault(suite.params.banks[bank].dataset, bank)
        for part in ("mean.training", "covariance.training"):
            told, expected = arrays[part], found[first][part]
            same = told.shape == expected.shape
            if not same or np.abs(told - expected).max() > ALIKE * np.abs(expected).max():
                yield bank, (f"{part} as in bank {first}", "another")


def _sources(
    spec: QualitySpec, found: Arrays, digest: str, bank: Artefact, data: Artefact
) -> Problem | None:
    """Anchors, labels and pixels are those of dataset and bank; digest is the file's own."""
    prepared = open_prepared(data)
    start, stop = prepared.card["splits"]["train"]
    count = stop - start
    rows = np.array([place * count // spec.anchors for place in range(spec.anchors)])
    if problem := compare("rows", found["rows"], rows):
        return problem
    others = found["others"]
    if (others < 0).any() or (others >= count).any() or (others == rows).any():
        return "another training image beside each anchor", f"{others[others == rows][:3]}"
    if "labels" in found:
        labels = np.asarray(prepared.labels[start:stop])[rows]
        if problem := compare("labels", found["labels"], labels):
            return problem
    images = np.load(bank.folder / "images.npy", mmap_mode="r", allow_pickle=False)
    if int(found["pixels"]) != int(np.prod(images.shape[2:])):
        return f"{int(np.prod(images.shape[2:]))} values of an image", f"{int(found['pixels'])}"
    for near in (found["nearest_pixel"], found["nearest_feature"]):
        if (near < 0).any() or (near >= count).any():
            return f"rows of {count} training images", "others among the nearest"
    order = np.random.default_rng(int(digest[:16], 16)).permutation(spec.anchors)
    training = window(prepared.images, start, stop)
    problems = chain(
        _cosines(found),
        compared(found, images, training, order[:COMPARED]),
        searched(found, images, training, order[:SPOTS]),
    )
    return next(filter(None, problems), None)


def _network(suite: Suite, artefact: Artefact, spec: QualitySpec) -> Problem | None:
    """The network on record is the one that was asked for, and Inception alone gives FID."""
    facts = artefact.predicate["facts"]
    network = facts["network"]
    if network["name"] != spec.network:
        return f"network {spec.network}", f"{network['name']}"
    if any(name.endswith("/fid") for name in artefact.metrics) != (spec.network == INCEPTION):
        return f"{spec.distance} with {spec.network}", f"{sorted(artefact.metrics)[:3]}"
    digests = [spec.inception.sha256] if spec.inception else []
    if spec.encoder:
        job = encoder_job(suite.judged[spec.encoder])
        made = suite.records.current(job.stage, job.name, job.spec)
        digests = [made.subjects["encoder.safetensors"]["digest"]["sha256"]] if made else []
    for digest in digests:
        if digest is not None and network["weights_sha256"] != digest:
            return f"weights sha256 {digest}", f"{network['weights_sha256']}"
    if spec.inception:
        published = network["weights_sha256"].startswith(REFERENCE)
        if network.get("reference_weights") is not published:
            return f"published weights: {published}", f"{network.get('reference_weights')}"
    read = spec.label_agreement is not None
    if facts.get("labels_read_for_analysis") is not read:
        return f"labels read for analysis: {read}", f"{facts.get('labels_read_for_analysis')}"
    return None


def _finding(
    suite: Suite, artefact: Artefact, bank: str, problem: Problem, number: Number | None = None
) -> Finding:
    numbers = frozenset({number}) if number else suite.dependents("measure-bank", bank)
    message = "the quality figures do not follow from what they were made from"
    return Finding(ID, BLOCKING, str(artefact.manifest), *problem, message, bank, numbers)


def _bank(suite: Suite, bank: str, truth: Truth, arrays: dict[str, Arrays]) -> Iterator[Finding]:
    job, spec = quality_job(suite.params, bank), quality_spec(suite.params, bank)
    drawn, prepared = bank_job(suite.params, bank), prepare_job(suite.params, spec.dataset)
    artefact, source, data = (
        suite.records.current(each.stage, each.name, each.spec) for each in (job, drawn, prepared)
    )
    if artefact is None or source is None or data is None:
        return  # A01 and A05 report it
    try:
        probed = spec.label_agreement is not None
        path = artefact.folder / "quality.npz"
        found = load_measured(path, spec.anchors, max(spec.candidates), probed)
        for k in spec.candidates:
            numbers = recompute_numbers(found, k, spec.near_copy, spec.distance)
            told = artefact.metrics.get(f"quality/k{k}/{spec.distance}")
            if _near(told, numbers[spec.distance], DISTANCE * size_of_moments(found, k)):
                numbers[spec.distance] = told  # what tables print, to the last digit
            truth[bank, k] = numbers
        arrays[bank] = found
        for k, name, problem in _numbers(artefact, spec, found, truth):
            number = Number(bank, name, PROTOCOL, variant_of(k)) if name else None
            yield _finding(suite, artefact, bank, problem, number)
        problem = _network(suite, artefact, spec) or _sources(
            spec, found, artefact.subjects[path.name]["digest"]["sha256"], source, data
        )
    except UNREADABLE as error:
        problem = ("readable figures and what they follow from", f"{error!r}")
    if problem:
        yield _finding(suite, artefact, bank, problem)


def _cells(suite: Suite, truth: Truth) -> Iterator[Finding]:
    """Cells of the table that are not the recomputed numbers."""
    for table in suite.shown.tables:
        path = suite.reports / "tables" / f"{table}.csv"
        try:
            cells = read_cells(path.read_text(encoding="utf-8"), str(path))
        except (OSError, ValueError, TypeError, ClspError):
            continue  # A01 and A22 report it
        for cell in cells:
            if cell.protocol != PROTOCOL or cell.mean is None:
                continue
            known = truth.get((cell.runs, int(cell.variant[2:])))
            if known is None:
                continue  # its measurement is missing or unreadable, which is said elsewhere
            right = known.get(cell.tasks)
            if right is None or not abs(cell.mean - right) <= PRINTED * (1 + abs(right)):
                told = f"{cell.tasks} = {right}", f"{cell.mean}"
                key = frozenset({f"{table}:{cell.identifier}"})
                message = "the cell is not the bank's number"
                yield Finding(ID, BLOCKING, str(path), *told, message, cell.runs, cells=key)


def _points(suite: Suite, path: Path, truth: Truth) -> Iterator[Problem]:
    """Points of a figure that are not the recomputed numbers."""
    with open(path, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, strict=True):
            if "reason" in row:  # nothing to draw
                continue
            known = truth.get((row["bank"], int(row["k"])))
            if known is None:
                continue
            right = known.get(row["metric"])
            if right is None or not _near(float(row["number"]), right, PRINTED):
                yield f"{row['metric']} of {row['bank']} = {right}", row["number"]


def _printed(suite: Suite, truth: Truth) -> Iterator[Finding]:
    yield from _cells(suite, truth)
    for figure in FIGURES if truth else ():
        path = suite.reports / "figures" / f"{figure}.csv"
        if figure not in suite.shown.figures or not path.is_file():
            continue  # A01 reports it
        try:
            problems = list(_points(suite, path, truth))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            problems = [("a figure's readable numbers", f"{error!r}")]
        message = "the point is not the bank's number"
        for problem in problems:
            yield Finding(ID, BLOCKING, str(path), *problem, message)


def check(suite: Suite) -> list[Finding]:
    """Compute every quality figure again."""
    truth: Truth = {}
    arrays: dict[str, Arrays] = {}
    banks = measured_banks(suite.params)
    found = [f for bank in banks for f in _bank(suite, bank, truth, arrays)]
    for bank, problem in _training(suite, arrays):
        job = quality_job(suite.params, bank)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        if artefact is not None:
            found.append(_finding(suite, artefact, bank, problem))
    return [*found, *_printed(suite, truth)]
