"""What stands behind a job: its record, its source, its machine, and what it read."""

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from clsp.report.escape import anchor
from clsp.report.records import Records, manifest_digest
from clsp.runtime.canonical import sha256_json
from clsp.runtime.manifest import Artefact

UNMIRRORED = "not mirrored"
IMAGES = ("images.npy", "images.arrow")
Digest = tuple[str, str]  # what a digest is of, and its sha256


@dataclass(frozen=True)
class Step:
    """One job behind a run: its manifest, its source and when it ran."""

    title: str
    manifest: str
    manifest_sha256: str
    spec_sha256: str
    code: str
    commit: str
    mlflow: str
    attempt: str
    started: str
    seconds: float
    device: str


@dataclass(frozen=True)
class Source:
    """Something that was read, with the id of the page's section about it."""

    kind: str  # "dataset", "bank", "pairs" or "features of"
    name: str
    anchor: str
    sha256: str


@dataclass(frozen=True)
class Chain:
    """What every number of a run, imported encoder, floor or bank rests on.

    Attributes:
        commit: Every commit that a job behind it was made with.
        configuration: sha256 of the resolved settings.
        settings: The resolved settings as YAML.
        checkpoints: Files of weights, and digests of the tensors in them.
        data: What was trained on, or looked at.
        mlflow: Id of the mirrored run.
        attempt: Id of the attempt in the ledger.
        manifest: The record of all that, below the results.
        environment: Id of the page's section about the machine.
    """

    commit: str
    configuration: str
    settings: str
    checkpoints: list[Digest]
    data: list[Source]
    mlflow: str
    attempt: str
    manifest: str
    environment: str


def commit_of(artefact: Artefact) -> str:
    """The commit, and whether the tree was clean."""
    inside = artefact.predicate["internalParameters"]
    commit = inside.get("git_commit")
    if commit is None:
        return "unknown"
    return f"{commit} (with local changes)" if inside.get("dirty") else str(commit)


def mlflow_of(artefact: Artefact) -> str:
    """Id of the mirrored run of a job, or that there is none."""
    return str(artefact.predicate.get("mlflow_run_id") or UNMIRRORED)


def environment_text(artefact: Artefact) -> str:
    """Machine and libraries of a job, in one line."""
    inside = artefact.predicate["internalParameters"]
    versions = ", ".join(f"{k} {v}" for k, v in sorted(inside.get("versions", {}).items()))
    gpu = inside.get("gpu")
    told = gpu.get("name", "a GPU") if isinstance(gpu, dict) else gpu
    hardware = ", ".join(str(part) for part in (inside.get("cpu"), told) if part)
    return (
        f"Python {inside.get('python')} on {inside.get('platform')}"
        f"{f' ({hardware})' if hardware else ''}, {inside.get('device')}, "
        f"{inside.get('threads')} thread(s), lock {str(inside.get('lock_sha256'))[:12]}; "
        f"{versions or 'no library recorded'}"
    )


def digest_of(artefact: Artefact, name: str) -> str:
    """sha256 of a file of an artefact, as its manifest has it."""
    return artefact.subjects.get(name, {"digest": {}})["digest"].get("sha256", "not recorded")


def build_step(title: str, artefact: Artefact, records: Records) -> Step:
    """What the page says of one job."""
    inside, details = artefact.predicate["internalParameters"], artefact.predicate["runDetails"]
    return Step(
        title=title,
        manifest=records.relative(artefact),
        manifest_sha256=manifest_digest(artefact),
        spec_sha256=sha256_json(artefact.spec),
        code=inside.get("code", ""),
        commit=commit_of(artefact),
        mlflow=mlflow_of(artefact),
        attempt=str(artefact.predicate.get("run_uid")),
        started=details.get("started", ""),
        seconds=details.get("seconds", 0.0),
        device=inside.get("device", "unknown"),
    )


def short(uri: str) -> str:
    """The end of a path, from the artefact's kind on: data/digits/images.npy."""
    return "/".join(uri.split("/")[-3:])


def read_from(artefact: Artefact, folder: str, names: Iterable[str]) -> str:
    """sha256 of a file that a job read from an artefact's folder, as its manifest has it."""
    for dependency in artefact.predicate["resolvedDependencies"]:
        parts = dependency["uri"].split("/")
        if parts[-2:-1] == [folder] and parts[-1] in names:
            return str(dependency["digest"]["sha256"])
    return "not recorded"


def source_of(kind: str, name: str, reader: Artefact, *files: str) -> Source:
    """Something that a job read from the folder of its name, by one of these files."""
    return Source(kind, name, anchor(kind, name), read_from(reader, name, files))


def dataset_source(name: str, reader: Artefact) -> Source:
    """A dataset that a job read."""
    return source_of("dataset", name, reader, *IMAGES)


def build_chain(
    main: Artefact,
    behind: Iterable[Artefact],
    checkpoints: list[Digest],
    data: list[Source],
    records: Records,
) -> Chain:
    """The chain of something whose first job is `main`; `behind` are all of its jobs."""
    jobs = list(behind)
    mirrored = [mlflow_of(job) for job in (main, *jobs) if mlflow_of(job) != UNMIRRORED]
    return Chain(
        commit=", ".join(dict.fromkeys(map(commit_of, jobs))),
        configuration=sha256_json(main.spec),
        settings=yaml.safe_dump(main.spec, sort_keys=False, width=72, allow_unicode=True),
        checkpoints=checkpoints,
        data=data,
        mlflow=mirrored[0] if mirrored else UNMIRRORED,
        attempt=str(main.predicate.get("run_uid")),
        manifest=records.relative(main),
        environment=anchor("environment", environment_text(main)),
    )
