"""Class counts on a dataset's card are those of its labels, and those that its publisher states."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.catalog import Counts, dataset_info
from clsp.config.plan import datasets_needed, prepare_job
from clsp.config.schema import DatasetSpec

ID = "A31"
SEVERITY = BLOCKING
LEVEL = "L2"
# Images of every class in train and test, where all classes have equally many. Sources: the papers
# and pages that clsp/config/catalog.yaml cites for each of them.
BALANCED = {
    "cifar10": {"train": 5000, "test": 1000},
    "cifar100": {"train": 500, "test": 100},
    "fashion_mnist": {"train": 6000, "test": 1000},
    "stl10": {"test": 800},
    "food101": {"test": 250},
}
Problem = tuple[str, str]  # expected, found


def histogram(labels: np.ndarray, classes: int) -> list[int]:
    """Images of each class; of several per image each counts."""
    if labels.ndim == 2:
        return [int(count) for count in labels.sum(axis=0)]
    return np.bincount(labels[labels >= 0], minlength=classes).tolist()


def published_counts(spec: DatasetSpec) -> Counts | None:
    """What the catalogue says of the real files under this protocol, or None."""
    if spec.limit is not None or spec.options.get("source", "download") not in ("download", "auto"):
        return None
    known = dataset_info(spec.kind).counts.values()
    fits = [c for c in known if all(spec.options.get(k) == v for k, v in c.options.items())]
    return fits[0] if fits else None


def _published(
    spec: DatasetSpec, found: dict[str, list[int]], unlabelled: int
) -> Iterator[Problem]:
    """Where the labels are not those of the publisher's files."""
    counts = published_counts(spec)
    if counts is None:
        return
    if any(len(per_class) != counts.classes for per_class in found.values()):
        yield f"{counts.classes} classes", f"{len(found['train'])}"
        return
    if not dataset_info(spec.kind).multilabel:
        for split in ("train", "val", "test"):
            total = sum(found[split]) + (unlabelled if split == "train" else 0)
            if total != getattr(counts, split):
                yield f"{getattr(counts, split)} images in {split}", f"{total}"
    if (counts.unlabelled or 0) != unlabelled:
        yield f"{counts.unlabelled or 0} training images without a label", f"{unlabelled}"
    for split, each in BALANCED.get(spec.kind, {}).items():
        if counts.val == 0 and set(found[split]) != {each}:
            yield f"{each} images of every class in {split}", f"{sorted(set(found[split]))}"


def _problems(spec: DatasetSpec, labels: np.ndarray, card: dict[str, Any]) -> Iterator[Problem]:
    classes = len(card["classes"])
    found = {split: histogram(labels[a:b], classes) for split, (a, b) in card["splits"].items()}
    if "counts" in card and card["counts"] != found:
        split = next((s for s in found if card["counts"].get(s) != found[s]), "train")
        yield f"{split}: {found[split]}"[:160], f"{card['counts'].get(split)}"[:160]
    train = slice(*card["splits"]["train"])
    unlabelled = int((labels[train] < 0).sum()) if labels.ndim == 1 else 0
    yield from _published(spec, found, unlabelled)


def check(suite: Suite) -> list[Finding]:
    """Count the labels of every dataset again."""
    findings = []
    for name in datasets_needed(suite.params):
        dataset, job = suite.dataset(name), prepare_job(suite.params, name)
        if dataset is None:
            continue  # A01, A02 and A08 report it
        try:
            problems = list(_problems(suite.params.datasets[name], *dataset))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems = [("a card with classes and splits", f"{type(error).__name__}: {error}")]
        path = suite.records.current(job.stage, job.name, job.spec).folder / "card.json"
        message, numbers = (
            "the classes are not spread as they should be",
            suite.dependents(job.stage, name),
        )
        findings += [Finding(ID, BLOCKING, str(path), *p, message, name, numbers) for p in problems]
    return findings
