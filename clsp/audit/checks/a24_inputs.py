"""Every job read the very files that their producers hold now, and that it should have read."""

from pathlib import Path

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.lineage import Producer
from clsp.audit.suite import Suite
from clsp.config.plan import (
    bank_job,
    denoiser_job,
    fetch_job,
    is_fetched,
    pairs_job,
    prepare_job,
)
from clsp.report.records import SHARD, name_of
from clsp.runtime.manifest import Artefact

ID = "A24"
SEVERITY = BLOCKING


def _inventory(suite: Suite) -> dict[tuple[str, ...], tuple[Artefact, str]]:
    """Path below results or reports, as parts -> the artefact that holds it and the file's name."""
    known = {}
    for records in (suite.records, suite.report_records):
        for artefact in records:
            for name in artefact.subjects:
                path = (artefact.folder / name).relative_to(records.root)
                known[path.parts] = (artefact, name)
    return known


def _producer(known: dict, uri: str) -> tuple[Artefact, str] | None:
    """The artefact that holds a file, found by the end of its path: results may have moved."""
    parts = Path(uri).parts
    ends = (parts[start:] for start in range(len(parts)))
    return next((known[end] for end in ends if end in known), None)


def _wanted(suite: Suite, artefact: Artefact) -> set[Producer]:
    """The artefacts that a job has to read, from params.yaml."""
    params, name, runs = suite.params, name_of(artefact), suite.runs
    match artefact.stage:
        case "prepare-dataset":
            jobs = [fetch_job(params, name)] if is_fetched(params, name) else []
        case "train-denoiser":
            jobs = [prepare_job(params, params.denoisers[name].dataset)]
        case "generate-shard":
            bank = params.banks[name]
            jobs = [denoiser_job(params, bank.denoiser), prepare_job(params, bank.dataset)]
        case "gather-bank":
            return {(SHARD, name), ("prepare-dataset", params.banks[name].dataset)}
        case "pretrain-encoder":
            spec = runs[name].spec
            jobs = [prepare_job(params, spec.dataset)]
            jobs += [bank_job(params, spec.bank)] if spec.bank else []
            jobs += [pairs_job(params, spec.pairs)] if spec.pairs else []
        case "mine-pairs":
            pairs = params.pairs[name]
            return {("pretrain-encoder", pairs.run), ("prepare-dataset", pairs.dataset)}
        case "probe-encoder":
            return {("pretrain-encoder", name), ("prepare-dataset", runs[name].spec.dataset)}
        case "probe-transfer":
            tasks = {("prepare-dataset", task) for task in runs[name].transfer.datasets}
            return {("pretrain-encoder", name), *tasks}
        case _:
            return set()
    return {(job.stage, job.name) for job in jobs}


def _read(suite: Suite, known: dict, artefact: Artefact) -> tuple[list[list[str]], set[Producer]]:
    """Problems with what a job read, as [file, expected, found, message], and the producers."""
    problems, producers = [], set()
    for dependency in artefact.predicate["resolvedDependencies"]:
        uri, recorded = dependency["uri"], dependency["digest"]["sha256"]
        held = _producer(known, uri)
        if held is not None:
            producer, name = held
            producers.add((producer.stage, name_of(producer)))
            now = producer.subjects[name]["digest"]["sha256"]
        else:
            now = suite.sha256(Path(uri)) or "no such file"
        if now != recorded:
            message = "was made from other bytes than this file holds now"
            problems.append([uri, recorded[:16], now[:16], message])
    return problems, producers


def _findings(suite: Suite, known: dict, artefact: Artefact) -> list[Finding]:
    problems, producers = _read(suite, known, artefact)
    absent = sorted(" ".join(p) for p in _wanted(suite, artefact) - producers)
    if absent:
        message = "did not read what params.yaml makes it depend on"
        found = ", ".join(sorted(" ".join(p) for p in producers)) or "nothing"
        problems.append([str(artefact.manifest), ", ".join(absent), found, message])
    about = f"{artefact.stage} {name_of(artefact)}"
    numbers: frozenset[Number] = suite.affected(artefact)
    return [
        Finding(ID, BLOCKING, *problem, about, numbers, suite.cells_of(artefact))
        for problem in problems
    ]


def check(suite: Suite) -> list[Finding]:
    """Follow every recorded input to its producer."""
    known = _inventory(suite)
    return [
        finding for _, artefact in suite.in_use for finding in _findings(suite, known, artefact)
    ]
