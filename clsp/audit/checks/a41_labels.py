"""What pretraining and banks recorded about labels, and recipes, is what params.yaml says."""

from collections.abc import Iterator
from typing import Any

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.grid import Run
from clsp.config.labels import bank_label_users, spec_uses_labels
from clsp.config.plan import Job, bank_job, banks_needed
from clsp.config.schema import BankSpec
from clsp.runtime.manifest import Artefact

ID = "A41"
SEVERITY = BLOCKING
LEVEL = "L0"


def _expected(run: Run) -> dict[str, Any]:
    given = spec_uses_labels(run.spec)
    others = len(run.label_users) > sum(given.values())  # a bank or pairs made with labels
    return {
        "uses_labels": {**given, "artefact": others},
        "label_free": not run.label_users,
        "recipe_family": run.spec.recipe.family,
    }


def _problem(run: Run, artefact: Artefact) -> tuple[str, str] | None:
    facts = artefact.predicate["facts"]
    for key, expected in _expected(run).items():
        if key not in facts:
            return f"{key} = {expected}", f"no {key}"
        if facts[key] != expected or type(facts[key]) is not type(expected):
            return f"{key} = {expected}", f"{key} = {facts[key]}"[:120]
    return None


def _gathered(suite: Suite) -> Iterator[tuple[Job, BankSpec, Artefact]]:
    """Banks that are asked for and there; A01 reports the others."""
    for name in banks_needed(suite.params):
        job = bank_job(suite.params, name)
        bank = suite.records.current(job.stage, job.name, job.spec)
        if bank is not None:
            yield job, suite.params.banks[name], bank


def _banks(suite: Suite) -> Iterator[Finding]:
    """Banks whose record of labels is not what generator and denoiser say."""
    for job, spec, bank in _gathered(suite):
        expected = bool(bank_label_users(spec, suite.params.denoisers[spec.denoiser]))
        found = bank.predicate["facts"].get("label_conditioned")
        if found is not expected:
            yield Finding(
                ID,
                BLOCKING,
                str(bank.manifest),
                f"label_conditioned = {expected}",
                f"label_conditioned = {found}",
                "the record of labels is not what the bank's generator and denoiser say",
                job.name,
                suite.dependents(job.stage, job.name),
            )


def _samplers(suite: Suite) -> Iterator[Finding]:
    """Banks whose record of the sampler is not what was asked for."""
    for job, spec, bank in _gathered(suite):
        told = bank.predicate["facts"].get("sampler")
        told = told if isinstance(told, dict) else {}
        wanted = {"generator": spec.generator, **job.spec["options"]}
        odd = next((key for key, value in wanted.items() if told.get(key) != value), None)
        if odd is not None:
            message = "the record of the sampler is not what params.yaml asks for"
            expected, found = f"{odd} = {wanted[odd]}", f"{odd} = {told.get(odd)}"[:80]
            numbers = suite.dependents(job.stage, job.name)
            told = (str(bank.manifest), expected, found, message, job.name)
            yield Finding(ID, BLOCKING, *told, numbers)


def _runs(suite: Suite) -> list[Finding]:
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.manifest),
            *problem,
            "the record of labels or recipe is not what params.yaml asks for",
            run.slug,
            suite.affected(artefact),
        )
        for run, artefact in suite.trainings
        if (problem := _problem(run, artefact))
    ]


def check(suite: Suite) -> list[Finding]:
    """Compare the facts of runs and banks with method, source, recipe, generator and denoiser."""
    return [*_banks(suite), *_samplers(suite), *_runs(suite)]
