"""What was imported is the file that params.yaml and the record name, tensor by tensor.

The recorded sha256 is the pinned one and that of the file the job read; where the file still lies,
it is hashed again. The stored tensors have the recorded digest and are finite. What the record says
of labels is what params.yaml says; no file shows it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clsp.audit.checks.a24_inputs import FOREIGN, IMPORTING
from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.plan import Job
from clsp.runtime.manifest import Artefact

ID = "A44"
SEVERITY = BLOCKING
LEVEL = "L1"
STORED = {
    "import-denoiser": "unet/diffusion_pytorch_model.safetensors",
    "import-encoder": "encoder.safetensors",
}

Problem = tuple[str, str, str]  # file, expected, found


def _digest(path: Path) -> str:
    """sha256 over names, types, shapes and bytes of tensors, in the order of names."""
    total = hashlib.sha256()
    with safe_open(path, framework="np") as stored:
        for name in sorted(stored.keys()):
            values = stored.get_tensor(name)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinity")
            total.update(f"{name}|{values.dtype.str}|{values.shape}|".encode())
            total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def _recorded(job: Job) -> dict[str, Any]:
    """What the record has to say, from params.yaml alone."""
    if job.stage == "import-denoiser":
        return {"format": job.spec["format"], "label_conditioned": False}
    used = job.spec["uses_labels"]
    return {"format": job.spec["format"], "uses_labels": used, "label_free": not used}


def _facts(job: Job, artefact: Artefact) -> Iterator[Problem]:
    facts, manifest = artefact.predicate["facts"], str(artefact.manifest)
    for key, expected in _recorded(job).items():
        found = facts.get(key)
        if found != expected or type(found) is not type(expected):
            yield manifest, f"{key} = {expected}", f"{key} = {found}"


def _files(suite: Suite, job: Job, artefact: Artefact) -> Iterator[Problem]:
    """The file with the weights is the pinned one; every file that still lies is the one read."""
    manifest, source = str(artefact.manifest), artefact.predicate["facts"]["source"]
    read = {
        dependency["uri"]: dependency["digest"]["sha256"]
        for dependency in artefact.predicate["resolvedDependencies"]
        if dependency["name"].startswith(FOREIGN)
    }
    recorded, wanted = source["sha256"], job.spec.get("sha256")
    if wanted is not None and recorded != wanted:
        yield manifest, f"sha256 {wanted[:16]} of params.yaml", f"{recorded}"[:16]
    if read.get(source["path"]) != recorded:
        found = f"{read.get(source['path'])}"[:16]
        yield manifest, f"sha256 {recorded[:16]} among the files read", found
    inside = source["path"] == job.spec["path"] or (
        job.spec["format"] == "diffusers"
        and Path(source["path"]).is_relative_to(Path(job.spec["path"]))
    )
    if not inside:
        yield manifest, f"the path {job.spec['path']}", f"{source['path']}"
    for uri, digest in read.items():
        now = suite.sha256(suite.place.beside(uri))
        if now not in (None, digest):
            yield uri, f"sha256 {digest[:16]}, as when it was imported", now[:16]


def _tensors(artefact: Artefact) -> Iterator[Problem]:
    path = artefact.folder / STORED[artefact.stage]
    recorded = artefact.predicate["facts"]["tensors_sha256"]
    expected = recorded["imported"] if artefact.stage == "import-denoiser" else recorded
    found = _digest(path)
    if found != expected:
        yield str(path), f"tensors with sha256 {expected}"[:40], found[:16]


def _problems(suite: Suite, job: Job, artefact: Artefact) -> Iterator[Problem]:
    yield from _facts(job, artefact)
    try:
        yield from _files(suite, job, artefact)
        yield from _tensors(artefact)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        told = f"{type(error).__name__}: {error}"
        yield str(artefact.manifest), "a complete record of readable files", told


def check(suite: Suite) -> list[Finding]:
    """Compare every imported artefact with params.yaml, its record and the file it came from."""
    findings = []
    for job in suite.jobs:
        if job.stage not in IMPORTING:
            continue
        artefact = suite.records.current(job.stage, job.name, job.spec)
        if artefact is None:
            continue  # A01 and A05 report it
        message, numbers = "what was imported is not what is recorded", suite.affected(artefact)
        findings += [
            Finding(ID, BLOCKING, *problem, message, f"{job.stage} {job.name}", numbers)
            for problem in _problems(suite, job, artefact)
        ]
    return findings
