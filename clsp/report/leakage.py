"""Duplicates between what is trained on and what is tested on, as the report prints them."""

from dataclasses import dataclass
from typing import Any

from clsp.config.plan import duplicates_job
from clsp.config.schema import Params
from clsp.report.records import Records
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import DataError

KINDS = {
    "dataset": "pretraining, diffusion or pairs",
    "bank": "synthetic positives",
    "task": "its own classifier",
}


@dataclass(frozen=True)
class Leak:
    """One comparison that found duplicates."""

    trained_on: str
    used_for: str
    tested_on: str
    duplicates: int
    images: int
    examples: list[str]


@dataclass(frozen=True)
class Leakage:
    """All comparisons.

    Attributes:
        manifest: Of the artefact, below the results.
        leaks: Comparisons that found something.
        clean: Comparisons that found nothing, by what is trained on: the test splits.
    """

    manifest: str
    leaks: list[Leak]
    clean: dict[str, list[str]]


def _leak(pair: dict[str, Any]) -> Leak:
    return Leak(
        pair["trained_on"],
        KINDS[pair["kind"]],
        pair["tested_on"],
        pair["duplicates"],
        pair["images"],
        [" = ".join(example["names"]) for example in pair["examples"]],
    )


def build_leakage(params: Params, records: Records) -> Leakage | None:
    """What the stage count-duplicates found, or None if it has not run with these settings.

    Raises:
        DataError: If its file holds something else.
    """
    job = duplicates_job(params)
    artefact = records.current(job.stage, job.name, job.spec)
    if artefact is None:
        return None
    path = artefact.path("duplicates.json")
    found = Leakage(records.relative(artefact), [], {})
    try:
        for pair in read_json(path)["pairs"]:
            if pair["duplicates"]:
                found.leaks.append(_leak(pair))
            else:
                found.clean.setdefault(pair["trained_on"], []).append(pair["tested_on"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a record of duplicates ({error!r})") from error
    return found
