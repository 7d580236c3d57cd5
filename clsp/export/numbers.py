"""The numbers of one encoder, each with the file that it follows from."""

from dataclasses import dataclass
from typing import Any

from clsp.config.grid import Run
from clsp.config.plan import prepare_job
from clsp.export.evidence import Evidence
from clsp.report.collect import (
    Key,
    counted,
    current_artefacts,
    expected_numbers,
    results_of,
    row_name,
    runs_by_name,
)
from clsp.report.statistics import mean_and_std
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import IncompleteError
from clsp.runtime.manifest import Artefact


@dataclass(frozen=True)
class Task:
    """The dataset that a number is about: its name, title and what identifies it."""

    name: str
    title: str
    card_sha256: str  # of card.json, which holds the digests of images, labels and splits


@dataclass(frozen=True)
class Number:
    """One number of an encoder, or None where nothing was run.

    Attributes:
        task: The dataset.
        protocol: "linear", "knn", "transfer", "few_shot" or "fine_tune".
        variant: What differs from the protocol's usual form, or nothing.
        record: What the metric file says: value (percent), correct, total, metric, split, epoch.
        predictions_sha256: Of the stored predictions.
        manifest_sha256: Of the record of the step.
        finished: When the step ended, ISO 8601.
        mean: Over the seeds of this row of the tables, percent.
        std: Sample standard deviation over seeds; None below two.
        n: Seeds that have the number.
        expected: Seeds that params.yaml asks for.
    """

    task: Task
    protocol: str
    variant: str
    record: dict[str, Any] | None
    predictions_sha256: str
    manifest_sha256: str
    finished: str
    mean: float | None
    std: float | None
    n: int
    expected: int


def task_of(evidence: Evidence, name: str) -> tuple[Task, dict[str, Any]]:
    """A prepared dataset and its card.

    Raises:
        IncompleteError: If it is not prepared.
        DataError: If its card was changed.
    """
    job = prepare_job(evidence.params, name)
    artefact = evidence.records.current(job.stage, job.name, job.spec)
    if artefact is None:
        raise IncompleteError(f"dataset {name}: not prepared as params.yaml asks for")
    path = evidence.file(evidence.trusted(artefact), "card.json")
    card = read_json(path)
    digest = artefact.subjects["card.json"]["digest"]["sha256"]
    return Task(name, card["title"], digest), card


def _judging(evidence: Evidence, run: Run, stage: str) -> Artefact | None:
    artefact = counted(run, stage, current_artefacts(run, evidence.records))
    return evidence.trusted(artefact) if artefact else None


def _over_seeds(evidence: Evidence, run: Run, stage: str, key: Key) -> tuple[list[float], int]:
    """Values of every seed of the run's row, and how many seeds are asked for."""
    runs = [r for r in runs_by_name(evidence.params)[row_name(run)] if isinstance(r, Run)]
    found = (_judging(evidence, each, stage) for each in runs)
    records = [results_of(artefact).get(key) for artefact in found if artefact]
    return [record["value"] for record in records if record], len(runs)


def numbers_of(evidence: Evidence, run: Run) -> list[Number]:
    """Every number that params.yaml asks for of one run; its files are hashed again.

    Raises:
        DataError: If a manifest, a metric file or a file of predictions was changed.
    """
    numbers = []
    for stage, keys in expected_numbers(run).items():
        artefact = _judging(evidence, run, stage)
        for name in sorted(artefact.subjects) if artefact else ():
            evidence.file(artefact, name)
        results = results_of(artefact) if artefact else {}
        for key in keys:
            record, digests = results.get(key), ("", "", "")
            if artefact and record:
                subject = artefact.subjects[record["predictions"]["file"]]
                uid = str(artefact.predicate["run_uid"])
                details = artefact.predicate["runDetails"]
                digests = (subject["digest"]["sha256"], evidence.made[uid], details["finished"])
            values, expected = _over_seeds(evidence, run, stage, key)
            task, protocol, variant = key
            over = (*mean_and_std(values), len(values), expected)
            about = task_of(evidence, task)[0]
            numbers.append(Number(about, protocol, variant, record, *digests, *over))
    return numbers
