"""Stored labels are the dataset's, row by row, over the whole test split and nothing else."""

import numpy as np

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import load_predictions
from clsp.audit.suite import Suite
from clsp.runtime.manifest import Artefact

ID = "A08"
SEVERITY = BLOCKING


def _problem(suite: Suite, number: Number, record: dict, probe: Artefact) -> tuple[str, str] | None:
    """(expected, found), or None if the labels and rows are right."""
    dataset = suite.dataset(number.task)
    if dataset is None:
        return "a readable dataset", f"none for {number.task}"
    names = record["predictions"]
    try:
        stored = load_predictions(
            probe.folder / names["file"], names["logits"], names["labels"], names["rows"]
        )
        start, stop = dataset[1]["splits"]["test"]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return "readable predictions and card", str(error)
    if not np.array_equal(stored.rows, np.arange(start, stop)):
        return f"test rows {start} to {stop} in order", f"{len(stored.rows)} other rows"
    wrong = np.flatnonzero(dataset[0][start:stop] != stored.labels)
    if len(wrong):
        row = int(wrong[0])
        return (
            f"label {dataset[0][start + row]} in row {start + row}",
            f"label {stored.labels[row]} ({len(wrong)} differ)",
        )
    return None


def check(suite: Suite) -> list[Finding]:
    """Compare labels in predictions with those of the dataset."""
    findings = []
    for run, probe in suite.probes:
        for number, record in suite.results_of(run, probe):
            if problem := _problem(suite, number, record, probe):
                file = str(probe.folder / record["predictions"]["file"])
                message = "labels of the predictions are not those of the dataset's test split"
                about = " ".join(filter(None, number))
                findings.append(
                    Finding(ID, BLOCKING, file, *problem, message, about, frozenset({number}))
                )
    return findings
