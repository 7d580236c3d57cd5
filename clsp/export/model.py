"""One encoder as a folder that the Hugging Face Hub, torchvision and timm understand."""

from pathlib import Path
from typing import Any

from clsp.config.convergence import EXPECTATIONS
from clsp.config.grid import Run, expand_runs
from clsp.config.plan import bank_job, pretrain_job
from clsp.config.recipe import Normalisation
from clsp.config.strict import parse
from clsp.export.card import eval_results, render_card
from clsp.export.encoder import WEIGHTS, check_weights, config_json
from clsp.export.evidence import Evidence
from clsp.export.folder import replacing
from clsp.export.licence import FILE as LICENCE
from clsp.export.licence import licence_text
from clsp.export.numbers import numbers_of, task_of
from clsp.report.page import read_deviations
from clsp.runtime.canonical import sha256_file, sha256_json
from clsp.runtime.errors import ConfigError, DataError, IncompleteError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.registry import nearest

ENCODER = "encoder.safetensors"
DEVIATIONS = EXPECTATIONS / "deviations.yaml"


def pretrained(evidence: Evidence, run: Run) -> Artefact | None:
    """The run's artefact, if it is what params.yaml asks for."""
    job = pretrain_job(run)
    return evidence.records.current(job.stage, job.name, job.spec)


def chosen_runs(evidence: Evidence, slugs: list[str]) -> list[Run]:
    """The runs that are asked for by name, or every finished one.

    Raises:
        ConfigError: If there is no run of that name.
        IncompleteError: If a run is not finished, or none is.
    """
    runs = expand_runs(evidence.params)
    for slug in slugs:
        if slug not in runs:
            raise ConfigError(
                f'--run "{slug}": no run of that name{nearest(slug, runs)}; '
                "python -m clsp check lists them"
            )
        if pretrained(evidence, runs[slug]) is None:
            raise IncompleteError(f"{slug}: not finished as params.yaml asks for it")
    if slugs:
        return [runs[slug] for slug in dict.fromkeys(slugs)]
    found = [run for run in runs.values() if pretrained(evidence, run) is not None]
    if not found:
        raise IncompleteError(f"{evidence.results}: no pretraining run is finished")
    return found


def _bank(evidence: Evidence, run: Run, made: Artefact) -> dict[str, Any] | None:
    """What is known of the run's bank.

    Raises:
        DataError: If the bank here is not the one that the run has read.
    """
    if run.spec.bank is None:
        return None
    job = bank_job(evidence.params, run.spec.bank)
    bank = evidence.records.current(job.stage, job.name, job.spec)
    if bank is None:
        raise IncompleteError(f"bank {run.spec.bank}: not there as params.yaml asks for it")
    read = {d["name"]: d["digest"] for d in made.predicate["resolvedDependencies"]}
    for name, subject in evidence.trusted(bank).subjects.items():
        if subject["digest"] not in read.values():
            raise DataError(f"{bank.folder / name}: not what {made.manifest} says it was made from")
    facts = bank.predicate["facts"]
    return {
        "candidates": job.spec["candidates"],
        "generator": job.spec["generator"],
        "label_conditioned": facts["label_conditioned"],
        "denoiser": facts["denoiser"]["tensors_sha256"],
    }


def _input_statistics(run: Run, made: Artefact, card: dict[str, Any]) -> Normalisation:
    """Mean and deviation that the run normalised its input with."""
    told = made.predicate["facts"].get("normalisation")
    known = told or {"mean": card["mean"], "std": card["std"]}
    return parse(Normalisation, known, f"{made.manifest}: normalisation of {run.slug}")


def export_model(
    evidence: Evidence,
    run: Run,
    final: Path,
    licence: str | None = None,
    published: str | None = None,
) -> None:
    """Write weights, card, config.json and evaluation results of one run.

    Args:
        evidence: The records.
        run: A finished run.
        final: Folder to write; one that is there is replaced.
        licence: Identifier of the licence that the weights are published under, or None.
        published: Address where the evidence is published, or None.

    Raises:
        DataError: If a file, a manifest or the ledger was changed, or nothing can be written.
        IncompleteError: If the run or its bank is not there, or is not in the ledger.
    """
    made = pretrained(evidence, run)
    if made is None:
        raise IncompleteError(f"{run.slug}: not finished as params.yaml asks for it")
    weights = evidence.file(evidence.trusted(made), ENCODER)
    digest = made.subjects[ENCODER]["digest"]["sha256"]
    tensors = check_weights(weights, run.spec.encoder)
    card = task_of(evidence, run.spec.dataset)[1]
    statistics = _input_statistics(run, made, card)
    numbers = numbers_of(evidence, run)
    about = {
        "card": card,
        "counts": card["splits"]["train"][1] - card["splits"]["train"][0],
        "bank": _bank(evidence, run, made),
        "labels": ", ".join(run.label_users) or "none",
        "statistics": statistics,
        "tensors": tensors,
        "weights_sha256": digest,
        "manifest_sha256": evidence.made[str(made.predicate["run_uid"])],
        "spec_sha256": sha256_json(made.spec),
        "deviations": read_deviations(DEVIATIONS),
        "licence": licence,
        "published": published,
    }
    terms = (card["title"], card["license"], card["source"])
    identity = {
        "run": run.slug,
        "weights_sha256": digest,
        "manifest_sha256": about["manifest_sha256"],
    }
    with replacing(final) as fresh:
        (fresh / WEIGHTS).write_bytes(weights.read_bytes())
        if sha256_file(fresh / WEIGHTS) != digest:
            raise DataError(f"{weights}: changed while it was copied")
        config = config_json(run.spec.encoder, statistics, card["size"], identity)
        write_atomic(fresh / "config.json", config)
        write_atomic(fresh / LICENCE, licence_text(licence, *terms))
        write_atomic(fresh / "README.md", render_card(run, made, numbers, evidence, about))
        demonstration = evidence.params.demonstration
        for name, text in eval_results(numbers, demonstration, published).items():
            write_atomic(fresh / ".eval_results" / name, text)
