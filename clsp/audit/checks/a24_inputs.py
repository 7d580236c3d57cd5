"""Every job read the very files that their producers hold now, and that it should have read."""

from collections.abc import Iterable
from pathlib import Path

from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.lineage import Producer
from clsp.audit.place import own_copy
from clsp.audit.suite import JUDGING, Suite
from clsp.config.floors import Floor
from clsp.config.plan import (
    banks_needed,
    datasets_needed,
    denoiser_job,
    encoder_job,
    is_fetched,
)
from clsp.report.records import SHARD, name_of
from clsp.runtime.manifest import Artefact

ID = "A24"
SEVERITY = BLOCKING
OTHER = "was made from other bytes than this file holds now"
LEVEL = "L1"
IMPORTING = ("import-denoiser", "import-encoder")
FOREIGN = "foreign/"  # their flag for files that somebody else made


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


def _prepared(names: Iterable[str]) -> set[Producer]:
    return {("prepare-dataset", name) for name in names}


def _encoder_of(suite: Suite, name: str) -> set[Producer]:
    """What gives the features of an encoder or floor; none gives raw pixels."""
    judged = suite.judged[name]
    if judged.features.source == "pixels":
        return set()
    if isinstance(judged, Floor):
        return {("pretrain-encoder", judged.run)}
    return {(encoder_job(judged).stage, name)}


def _wanted_by_judge(suite: Suite, stage: str, name: str) -> set[Producer]:
    """What a job that judges an encoder or floor has to read."""
    judged = suite.judged[name]
    tasks, features = _prepared(judged.features.tasks), {("extract-features", name)}
    own = _prepared([judged.features.own] if judged.features.own else [])
    match stage:
        case "extract-features":
            return _encoder_of(suite, name) | own | tasks
        case "probe-encoder":
            return features | own
        case "fine-tune-encoder":
            return _encoder_of(suite, name) | tasks
        case "probe-few-shot":
            return features | _prepared(judged.few_shot.datasets)
        case _:
            return features | tasks


def _wanted_by_training(suite: Suite, name: str) -> set[Producer]:
    spec = suite.runs[name].spec
    banks = {("gather-bank", spec.bank)} if spec.bank else set()
    pairs = {("mine-pairs", spec.pairs)} if spec.pairs else set()
    return _prepared([spec.dataset]) | banks | pairs


def _wanted(suite: Suite, artefact: Artefact) -> set[Producer]:
    """The artefacts that a job has to read, from params.yaml."""
    params, name = suite.params, name_of(artefact)
    if artefact.stage == "measure-bank":
        looked = params.quality.encoder
        encoder = {(encoder_job(suite.judged[looked]).stage, looked)} if looked else set()
        return encoder | {("gather-bank", name)} | _prepared([params.banks[name].dataset])
    if artefact.stage in (*JUDGING, "extract-features"):
        return _wanted_by_judge(suite, artefact.stage, name)
    match artefact.stage:
        case "prepare-dataset":
            return {("fetch-dataset", name)} if is_fetched(params, name) else set()
        case "train-denoiser" | "import-denoiser":
            return _prepared([params.denoisers[name].dataset])
        case "generate-shard":
            bank = params.banks[name]
            maker = denoiser_job(params, bank.denoiser).stage
            return {(maker, bank.denoiser), *_prepared([bank.dataset])}
        case "gather-bank":
            return {(SHARD, name), *_prepared([params.banks[name].dataset])}
        case "import-encoder":
            return _prepared([suite.imported[name].dataset])
        case "pretrain-encoder":
            return _wanted_by_training(suite, name)
        case "mine-pairs":
            pairs = params.pairs[name]
            return {("pretrain-encoder", pairs.run), *_prepared([pairs.dataset])}
        case "count-duplicates":
            banks = {("gather-bank", bank) for bank in banks_needed(params)}
            return _prepared(datasets_needed(params)) | banks
    return set()


def _read(suite: Suite, known: dict, artefact: Artefact) -> tuple[list[list[str]], set[Producer]]:
    """Problems with what a job read, as [file, expected, found, message], and the producers."""
    problems, producers = [], set()
    read: dict[Path, tuple[Artefact, set[str]]] = {}
    for dependency in artefact.predicate["resolvedDependencies"]:
        if artefact.stage in IMPORTING and dependency["name"].startswith(FOREIGN):
            continue  # it may be gone since; A44 judges it
        uri, recorded = dependency["uri"], dependency["digest"]["sha256"]
        held = _producer(known, uri)
        if held is not None:
            producer, name = held
            producers.add((producer.stage, name_of(producer)))
            read.setdefault(producer.manifest, (producer, set()))[1].add(name)
            now = producer.subjects[name]["digest"]["sha256"]
        else:
            own = own_copy(dependency["name"], suite.expectations)
            path = own or suite.place.tracked(uri, suite.expectations)
            now = suite.sha256(path) or "no such file"
        if now != recorded:
            problems.append([uri, recorded[:16], now[:16], OTHER])
    for producer, names in read.values():
        if absent := sorted(producer.subjects.keys() - names):  # a job is given whole artefacts
            told = (
                str(producer.folder / absent[0]),
                "none",
                "has no record of a file that it read",
            )
            problems.append([str(artefact.manifest), *told])
    return problems, producers


def _findings(suite: Suite, known: dict, artefact: Artefact) -> list[Finding]:
    problems, producers = _read(suite, known, artefact)
    wanted = _wanted(suite, artefact)
    absent = sorted(" ".join(p) for p in wanted - producers)
    odd = sorted(" ".join(p) for p in producers - wanted)
    if odd and artefact.manifest.is_relative_to(suite.results):
        message = "read what it should not have seen"
        told = ", ".join(sorted(" ".join(p) for p in wanted)) or "nothing"
        problems.append([str(artefact.manifest), told, ", ".join(odd), message])
    if absent:
        message = "did not read what params.yaml makes it depend on"
        found = ", ".join(sorted(" ".join(p) for p in producers)) or "nothing"
        problems.append([str(artefact.manifest), ", ".join(absent), found, message])
    about = f"{artefact.stage} {name_of(artefact)}"
    return [
        Finding(ID, BLOCKING, *problem, about, numbers, suite.cells_of(artefact))
        for problem in problems
        for numbers in [_behind(suite, known, artefact, problem)]
    ]


def _behind(suite: Suite, known: dict, artefact: Artefact, problem: list[str]) -> frozenset[Number]:
    """Numbers that a problem reaches: of an artefact that reads several datasets, not all."""
    held = _producer(known, problem[0]) if problem[3] == OTHER else None
    numbers = suite.affected(artefact)
    return numbers if held is None else numbers & suite.affected(held[0])


def check(suite: Suite) -> list[Finding]:
    """Follow every recorded input to its producer."""
    known = _inventory(suite)
    return [
        finding for _, artefact in suite.in_use for finding in _findings(suite, known, artefact)
    ]
