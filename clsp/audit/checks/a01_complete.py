"""Every artefact that params.yaml asks for is there once, with all its files and metrics."""

from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding
from clsp.audit.suite import JUDGING, Suite
from clsp.report.records import SHARD, shard_of
from clsp.runtime.manifest import Artefact

ID = "A01"
SEVERITY = BLOCKING
LEVEL = "L0"

REQUIRED = {
    "fetch-dataset": (),
    "prepare-dataset": ("labels.npy", "items.csv", "card.json"),
    "train-denoiser": ("model_index.json", "history.jsonl"),
    "import-denoiser": ("model_index.json",),
    "import-encoder": ("encoder.safetensors",),
    SHARD: (),
    "gather-bank": ("images.npy", "index.npy"),
    "pretrain-encoder": (
        "encoder.safetensors",
        "checkpoints/start.safetensors",
        "checkpoints/final.safetensors",
        "history.jsonl",
    ),
    "mine-pairs": ("pairs.npy", "features.npy"),
    "count-duplicates": ("duplicates.json",),
    "extract-features": ("features.safetensors",),
    "probe-encoder": ("linear.json", "knn.json", "linear.npz", "knn.npz"),
    "probe-transfer": ("transfer.json", "predictions.npz"),
    "probe-few-shot": ("few_shot.json", "predictions.npz"),
    "measure-bank": ("quality.json", "quality.npz"),
    "fine-tune-encoder": ("fine_tune.json", "predictions.npz"),
}


def _unreadable(suite: Suite) -> list[Finding]:
    bad = {**suite.records.read[1], **suite.report_records.read[1]}
    return [
        Finding(ID, BLOCKING, str(path), "a manifest", "something else", message, everything=True)
        for path, message in bad.items()
    ]


def _content(suite: Suite, artefact: Artefact) -> list[Finding]:
    problems = []
    subjects, stage = artefact.subjects, artefact.stage
    required = REQUIRED.get(stage, ())
    if stage == "prepare-dataset":
        stored = (artefact.spec.get("storage") or "arrays") == "arrays"
        required += ("images.npy" if stored else "images.arrow",)
    if absent := [name for name in required if name not in subjects]:
        problems.append(("all files of the stage", f"no {', '.join(absent)}"))
    if not subjects:
        problems.append(("at least one file", "none"))
    if empty := [name for name, subject in subjects.items() if not subject.get("size")]:
        problems.append(("files with content", f"empty: {', '.join(empty)}"))
    if artefact.predicate.get("status") != "completed":
        problems.append(("status completed", str(artefact.predicate.get("status"))))
    values = artefact.metrics.values()
    if stage in JUDGING and (not values or any(value is None for value in values)):
        problems.append(("metrics with values", str(artefact.metrics or "none")))
    return [
        Finding(
            ID,
            BLOCKING,
            str(artefact.manifest),
            expected,
            found,
            "the record is not complete",
            numbers=suite.affected(artefact),
            cells=suite.cells_of(artefact),
        )
        for expected, found in problems
    ]


def _shards(suite: Suite, bank: str) -> list[Finding]:
    """The shards of a bank are the complete set it was gathered from."""
    wanted, there = suite.shards_of(bank), suite.records.named(SHARD, bank)
    names = [shard_of(artefact) for artefact in there if shard_of(artefact) in wanted]
    if sorted(names) == sorted(wanted):
        return []
    return [
        Finding(
            ID,
            INCOMPLETE,
            str(there[0].folder),
            ", ".join(wanted),
            ", ".join(names) or "none of them",
            "the shards of the bank are not one complete set",
            bank,
            suite.dependents(SHARD, bank),
        )
    ]


def _present(suite: Suite) -> list[Finding]:
    findings = []
    for job in suite.jobs:
        made = suite.records.named(job.stage, job.name)
        numbers = suite.dependents(job.stage, job.name)
        about = f"{job.stage} {job.name}"
        where = str(suite.results)
        if not made:
            message = "the artefact is not there"
            if failed := suite.records.failure(job.stage, job.name, job.spec):
                message = f"the last attempt failed: {failed}"
            findings.append(
                Finding(ID, INCOMPLETE, where, "one manifest", "none", message, about, numbers)
            )
        elif job.stage == SHARD:
            findings += _shards(suite, job.name)
        elif len(made) > 1:
            found = ", ".join(str(artefact.manifest) for artefact in made)
            message = "several manifests claim to be the artefact"
            findings.append(
                Finding(ID, BLOCKING, where, "one manifest", found, message, about, numbers)
            )
    return findings


def _reports(suite: Suite) -> list[Finding]:
    return [
        Finding(
            ID,
            INCOMPLETE,
            str(suite.reports / name),
            "a manifest",
            "none",
            "a part of the report is not there",
            f"{job.stage} {job.name}",
            cells=frozenset({"*"} if job.stage == "collect-results" else ()),
        )
        for job, name in suite.report_jobs
        if suite.report_artefact(name) is None
        and suite.reports / name not in suite.report_records.read[1]
    ]


def check(suite: Suite) -> list[Finding]:
    """Report what is missing, doubled or incomplete."""
    contents = [finding for artefact in suite.artefacts for finding in _content(suite, artefact)]
    return [*_unreadable(suite), *_present(suite), *_reports(suite), *contents]
