"""Stored labels are the dataset's, row by row, over the whole test split and nothing else.

The dataset's own list of images gives the same labels, its arrays and list have the hashes that are
on the card, and at L3 preparing it again from its files or its drawing gives the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding, Number
from clsp.audit.items import Items, lines_sha256, read_items
from clsp.audit.recompute import load_predictions
from clsp.audit.replayed import prepared_again, prepared_name
from clsp.audit.suite import Suite
from clsp.config.plan import datasets_needed, prepare_job
from clsp.runtime.canonical import read_json, sha256_array
from clsp.runtime.manifest import Artefact

ID = "A08"
SEVERITY = BLOCKING
LEVEL = "L2"
UNLABELLED = -1

Problem = tuple[str, str]  # expected, found


def _problem(suite: Suite, number: Number, record: dict, probe: Artefact) -> Problem | None:
    """What is wrong with the labels and rows of one number."""
    dataset = suite.dataset(number.task)
    if dataset is None:
        return "a readable dataset", f"none for {number.task}"
    names = record["predictions"]
    try:
        stored = load_predictions(probe.folder / names["file"], names)
        start, stop = dataset[1]["splits"]["test"]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return "readable predictions and card", str(error)
    if not np.array_equal(stored.rows, np.arange(start, stop)):
        return f"test rows {start} to {stop} in order", f"{len(stored.rows)} other rows"
    labels = dataset[0][start:stop]
    if labels.shape != stored.labels.shape:
        return f"labels {labels.shape}", f"labels {stored.labels.shape}"
    wrong = np.flatnonzero((labels != stored.labels).reshape(len(labels), -1).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        return (
            f"label {labels[row]} in row {start + row}",
            f"label {stored.labels[row]} ({len(wrong)} differ)",
        )
    return None


def _written(labels: np.ndarray) -> list[str]:
    """Labels as the list of images spells them: a number, or numbers joined by spaces."""
    if labels.ndim == 1:
        return [str(label) for label in labels.tolist()]
    return [" ".join(map(str, np.flatnonzero(row).tolist())) for row in labels]


def _columns(items: Items, labels: np.ndarray, card: dict) -> Iterator[Problem]:
    """Where splits or labels of the list are not those of the card or the array."""
    ranges = sorted(card["splits"].items(), key=lambda entry: entry[1])
    splits = [name for name, (start, stop) in ranges for _ in range(stop - start)]
    for what, expected, found in (
        ("split", splits, items.split),
        ("label", _written(labels), items.label),
    ):
        if len(expected) != len(found):
            yield f"{len(expected)} images", f"{len(found)} in the list"
            continue
        pairs = enumerate(zip(expected, found, strict=True))
        if wrong := [row for row, (here, there) in pairs if here != there]:
            row = wrong[0]
            yield f"{what} {expected[row]} in row {row}", f"{found[row]} ({len(wrong)} differ)"


def _card(items: Items, labels: np.ndarray, card: dict) -> Iterator[Problem]:
    """What the card says otherwise than list and labels."""
    train = slice(*card["splits"]["train"])
    of_names = {name: lines_sha256(items.name[a:b]) for name, (a, b) in card["splits"].items()}
    unlabelled = int((labels[train] == UNLABELLED).sum()) if labels.ndim == 1 else 0
    for name, expected in {
        "items_sha256": of_names,
        "source_sha256": lines_sha256(items.source[train]),
        "unlabelled": unlabelled,
        "multilabel": labels.ndim == 2,
    }.items():
        if card.get(name) != expected:
            yield f"{name} = {expected}"[:160], f"{name} = {card.get(name)}"[:160]


def _arrays(folder: Path, labels: np.ndarray, card: dict) -> Iterator[Problem]:
    """Digests on the card that are not the arrays'; encoded images have theirs in the list."""
    found = {"labels_sha256": sha256_array(labels)}
    if (folder / "images.npy").is_file():
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        found["images_sha256"] = sha256_array(images)
    for name, digest in found.items():
        if card.get(name) != digest:
            yield f"{name} {digest[:16]}, as the arrays give", f"{card.get(name)}"[:16]


def _differs(suite: Suite, artefact: Artefact, answer: dict[str, Any]) -> Problem | None:
    """Where a dataset that was prepared again is not the stored one.

    Arrow files may be laid out otherwise by another release; the list has the digests of images.
    """
    for name, digest in answer["files"].items():
        now = suite.sha256(artefact.folder / name)
        if now != digest and not name.endswith(".arrow"):
            return f"{name} {digest[:16]}", f"{now}"[:16]
    counts = read_json(artefact.folder / "card.json").get("counts")
    return None if counts == answer["counts"] else (f"{answer['counts']}", f"{counts}")


def _decoders(environment: dict[str, Any]) -> list[Any]:
    versions = environment.get("versions") or {}
    return [versions.get(name) for name in ("numpy", "PIL")]


def _again(suite: Suite, name: str) -> Iterator[Finding]:
    """What preparing a dataset again gives otherwise (L3)."""
    job, answer = prepare_job(suite.params, name), prepared_again(suite, name)
    artefact = suite.records.current(job.stage, job.name, job.spec)
    if artefact is None or answer is None:
        return
    numbers, path = suite.dependents(job.stage, name), str(artefact.folder)
    if isinstance(answer, str):
        told = ("a dataset prepared again", answer, "the replay could not be done")
        yield Finding(ID, INCOMPLETE, path, *told, name, numbers)
        return
    if problem := _differs(suite, artefact, answer):
        then = _decoders(artefact.predicate["internalParameters"])
        alike = then == _decoders(answer["machine"])
        message = "prepared again, the dataset comes out otherwise than it is stored"
        if not alike:  # another release may decode or resize an image by a level otherwise
            message = f"{message}, by other versions of numpy or Pillow"
        severity = BLOCKING if alike else INCOMPLETE
        yield Finding(ID, severity, path, *problem, message, name, numbers)
    else:
        suite.depth.done.add(prepared_name(name))


def _list(suite: Suite, name: str) -> Iterator[Finding]:
    job, dataset = prepare_job(suite.params, name), suite.dataset(name)
    artefact = suite.records.current(job.stage, job.name, job.spec)
    if artefact is None or dataset is None:
        return  # A01, A02 and A05 report it
    path = artefact.folder / "items.csv"
    try:
        items = read_items(path)
        problems = [*_columns(items, *dataset), *_card(items, *dataset)]
        problems += _arrays(artefact.folder, *dataset)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems = [("a readable list of images and card", str(error))]
    message = "the list of images, the labels and the card do not agree"
    numbers = suite.dependents(job.stage, name)
    for problem in problems:
        yield Finding(ID, BLOCKING, str(path), *problem, message, name, numbers)


def check(suite: Suite) -> list[Finding]:
    """Compare labels in predictions with those of the dataset, and those with its list."""
    names = datasets_needed(suite.params)
    findings = [f for name in names for f in (*_list(suite, name), *_again(suite, name))]
    for judged, probe in suite.probes:
        for number, record in suite.results_of(judged, probe):
            if problem := _problem(suite, number, record, probe):
                file = str(probe.folder / record["predictions"]["file"])
                message = "labels of the predictions are not those of the dataset's test split"
                about = " ".join(filter(None, number))
                findings.append(
                    Finding(ID, BLOCKING, file, *problem, message, about, frozenset({number}))
                )
    return findings
