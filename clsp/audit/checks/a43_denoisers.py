"""Denoisers trained as long as asked for, with finite losses; their weights are those recorded."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.suite import Suite
from clsp.config.denoisers import DenoiserSpec
from clsp.config.plan import denoiser_job, denoisers_needed
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A43"
SEVERITY = BLOCKING
LEVEL = "L2"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name
FOLDERS = {"ema": "unet", "raw": "raw"}
NUMBERS = ("epoch", "grad_norm", "loss", "lr")

Problem = tuple[str, str]  # expected, found


def logged_steps(spec: DenoiserSpec, steps: int) -> list[int]:
    """Steps that the step log has a record of: the last of every window, and the last of all."""
    every = spec.log_every or 1
    return sorted({*range(every - 1, steps, every), steps - 1})


def tensors_digest(path: Path) -> str:
    """Hex sha256 over sorted (name, dtype, shape, C-order bytes) of a safetensors file."""
    digest = hashlib.sha256()
    with safe_open(path, framework="numpy") as stream:
        for name in sorted(stream.keys()):
            array = np.ascontiguousarray(stream.get_tensor(name))
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _counted(spec: DenoiserSpec, steps: int, counters: dict[str, Any]) -> Problem | None:
    wanted = {"steps": steps, "epochs": spec.epochs, "ema_updates": steps}
    found = {name: counters.get(name) for name in wanted}
    return None if found == wanted else (f"{wanted}", f"{found}")


def _logged(
    spec: DenoiserSpec, steps: int, per_epoch: int, records: list[dict[str, Any]]
) -> Problem | None:
    wanted, found = logged_steps(spec, steps), [record["step"] for record in records]
    if found != wanted:
        paired = enumerate(zip(found, wanted, strict=False))
        gap = next((n for n, (a, b) in paired if a != b), min(len(found), len(wanted)))
        told = f"{len(wanted)} records up to step {steps - 1}"
        return told, f"{len(found)}, wrong from position {gap}"
    for record in records:
        step = record["step"]
        if record.get("epoch") != step // per_epoch:
            return f"{per_epoch} steps per epoch", f"step {step} in epoch {record.get('epoch')}"
        if not all(math.isfinite(record.get(name, math.nan)) for name in NUMBERS):
            return f"finite {', '.join(NUMBERS)}", f"step {step}: {record}"
        warm = min(step, spec.warmup_steps) / spec.warmup_steps if spec.warmup_steps else 1
        if not math.isclose(record["lr"], spec.learning_rate * warm, rel_tol=1e-9):
            return f"lr {spec.learning_rate * warm:.6g} in step {step}", f"{record['lr']:.6g}"
    return None


def _labels(spec: DenoiserSpec, facts: dict[str, Any], artefact: Artefact) -> Problem | None:
    if facts.get("label_conditioned") is not spec.uses_labels:
        found = facts.get("label_conditioned")
        return f"label_conditioned {spec.uses_labels}, as the settings have it", f"{found}"
    labels = read_json(artefact.folder / "unet/config.json").get("num_class_embeds")
    classes = facts.get("classes")
    wanted = classes + 1 if spec.uses_labels and type(classes) is int else None
    if labels != wanted or (wanted is None) is spec.uses_labels:
        return f"a network of {wanted} labels", f"{labels}"
    return None


def _weights(
    spec: DenoiserSpec, steps: int, facts: dict[str, Any], artefact: Artefact
) -> Problem | None:
    stored = facts.get("tensors_sha256", {})
    found = {
        name: tensors_digest(artefact.folder / folder / WEIGHTS) for name, folder in FOLDERS.items()
    }
    if found != stored:
        return f"tensors {stored}", f"{found}"
    # The first step of a warm-up has rate 0; without decay the average is the last iterate.
    moved = (steps > 1 or not spec.warmup_steps) and spec.ema_decay > 0
    if moved and found["ema"] == found["raw"]:
        return "averaged weights, which are sampled, unlike the raw ones", "the same tensors"
    return None


def _problem(suite: Suite, spec: DenoiserSpec, artefact: Artefact) -> Problem | None:
    dataset, predicate = suite.dataset(spec.dataset), artefact.predicate
    if dataset is None:
        return "a readable dataset", f"none for {spec.dataset}"
    try:
        start, stop = dataset[1]["splits"]["train"]
        per_epoch = (stop - start) // spec.batch_size
        steps = spec.epochs * per_epoch
        return (
            _counted(spec, steps, predicate["counters"])
            or _logged(spec, steps, per_epoch, suite.history(artefact))
            or _labels(spec, predicate["facts"], artefact)
            or _weights(spec, steps, predicate["facts"], artefact)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return "a readable history, card and record", f"{type(error).__name__}: {error}"
    except (SafetensorError, ClspError) as error:
        return "readable weights and settings", str(error)


def check(suite: Suite) -> list[Finding]:
    """Compare every trained denoiser with its settings, its log and its files."""
    findings = []
    for name in denoisers_needed(suite.params):
        spec, job = suite.params.denoisers[name], denoiser_job(suite.params, name)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        if artefact is None or not isinstance(spec, DenoiserSpec):
            continue  # A01 and A05 report the first; imported ones have a check of their own
        if problem := _problem(suite, spec, artefact):
            findings.append(
                Finding(
                    ID,
                    BLOCKING,
                    str(artefact.manifest),
                    *problem,
                    "the denoiser was not trained as its settings say",
                    name,
                    suite.dependents(job.stage, name),
                )
            )
    return findings
