"""Candidates that are drawn again are those stored, and repeated steps give the logged losses.

What a bank says it was drawn with is compared with its denoiser at every level. At L3 the auditor's
nonce chooses candidates, which are drawn again, and runs, whose first steps are repeated from the
first checkpoint, and the one step behind the middle checkpoint: resume states, which hold the
optimizer's memory, do not outlive a run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding
from clsp.audit.replayed import chosen_banks, chosen_runs, drawn_again, first_steps
from clsp.audit.suite import Suite
from clsp.config.denoisers import DenoiserSpec
from clsp.config.execution import switches
from clsp.config.grid import Run
from clsp.config.plan import bank_job, banks_needed, denoiser_job, pretrain_job
from clsp.runtime.machine import hardware_class
from clsp.runtime.manifest import Artefact

ID = "A11"
SEVERITY = BLOCKING
LEVEL = "L2"
# Other batches on the same kind of device give other roundings: measured on CPUs 2 of 98304 values
# off by one (audit.md A11), and at most a thousandth is allowed.
LEVELS_OFF, SHARE_OFF = 1, 1e-3
MEAN_OFF = 1.0  # grey levels on another kind of device
FIRST, RELATIVE = 3, 1e-2  # steps that are compared on other hardware, and how closely
DECIDING = ("interpolation_weight", "rounding")  # options that a bank records as they are given
SAME = ("loss", "lr", "momentum", "alignment", "embedding_std")

Problem = tuple[str, str, str]  # file, expected, found


def _record(suite: Suite, name: str, bank: Artefact) -> Iterator[Problem]:
    """What a bank says of its denoiser and sampler is what they are."""
    spec = suite.params.banks[name]
    job = denoiser_job(suite.params, spec.denoiser)
    denoiser = suite.records.current(job.stage, job.name, job.spec)
    told = bank.predicate["facts"].get("denoiser")
    if denoiser is None:
        return
    own = isinstance(suite.params.denoisers[spec.denoiser], DenoiserSpec)
    key, weights = ("ema", "ema") if own else ("imported", "imported")
    digest = denoiser.predicate["facts"].get("tensors_sha256", {})
    expected = {"tensors_sha256": digest.get(key), "weights": weights}
    if told != expected:
        yield str(bank.manifest), f"drawn with {expected}"[:160], f"{told}"[:160]
    sampler = bank.predicate["facts"].get("sampler") or {}
    for option in DECIDING:
        if option in spec.options and sampler.get(option) != spec.options[option]:
            expected = f"{option} = {spec.options[option]}"
            yield str(bank.manifest), expected, f"{sampler.get(option)}"


def images_differ(stored: np.ndarray, fresh: np.ndarray, alike: bool) -> tuple[str, str] | None:
    """Where candidates that were drawn again are not the stored ones, or None.

    Args:
        stored: uint8 (P, H, W, 3).
        fresh: Of the same shape.
        alike: Whether both were drawn on the same kind of device with the same torch.
    """
    if fresh.shape != stored.shape or fresh.dtype != np.uint8:
        return f"images {stored.shape}", f"{fresh.dtype} {fresh.shape}"
    gaps = np.abs(stored.astype(np.int16) - fresh).reshape(len(stored), -1)
    if alike:
        share = float((gaps > 0).mean())
        if gaps.max() > LEVELS_OFF or share > SHARE_OFF:
            told = f"{gaps.max()} levels, {share:.2%} of values"
            return f"at most {LEVELS_OFF} level off in {SHARE_OFF:.1%} of values", told
        return None
    if gaps.mean() > MEAN_OFF:
        return f"{MEAN_OFF:g} level off in the mean", f"{gaps.mean():.2f}"
    flat = stored.reshape(len(stored), -1).astype(np.float64)
    wide = fresh.reshape(len(fresh), -1).astype(np.float64)
    squares = (wide**2).sum(1)[:, None] - 2 * wide @ flat.T + (flat**2).sum(1)[None]
    own = int((squares.argmin(axis=1) == np.arange(len(flat))).sum())
    if own < len(flat):
        return f"each nearest to its own stored image, {len(flat)} of {len(flat)}", f"{own}"
    return None


def _torch(environment: dict[str, Any]) -> str:
    return str((environment.get("versions") or {}).get("torch"))


def _same_machine(recorded: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether bits may be expected to be equal."""
    return (
        hardware_class(recorded) == hardware_class(now)
        and _torch(recorded) == _torch(now)
        and recorded.get("threads") == now.get("threads")
    )


def _candidates(suite: Suite, name: str, bank: Artefact) -> Iterator[Finding]:
    answer, path = drawn_again(suite, name), str(bank.folder / "images.npy")
    numbers = suite.dependents("gather-bank", name)
    if isinstance(answer, str):
        told = ("candidates drawn again", answer, "the replay could not be done")
        yield Finding(ID, INCOMPLETE, path, *told, name, numbers)
    elif answer is not None:
        _, stored, fresh, facts = answer
        now = facts.get("machine") or {}
        devices = bank.predicate["facts"].get("devices", [])
        alike = devices == [facts.get("device")] and _torch_of_shards(suite, name) == {_torch(now)}
        if problem := images_differ(stored, fresh, alike):
            message = "drawn again, candidates come out otherwise than they are stored"
            yield Finding(ID, BLOCKING, path, *problem, message, name, numbers)
        else:
            suite.depth.done.add(name)


def _torch_of_shards(suite: Suite, name: str) -> set[str]:
    shards = suite.records.named("generate-shard", name)
    return {_torch(shard.predicate["internalParameters"]) for shard in shards}


def losses_differ(
    logged: list[dict[str, Any]], fresh: list[dict[str, Any]], alike: bool
) -> tuple[str, str] | None:
    """Where repeated steps give another log, or None.

    Args:
        logged: Records of the run's step log, by step.
        fresh: Records of the repeated steps.
        alike: Whether both were computed on the same hardware, torch and threads.
    """
    if not fresh:
        return "repeated steps", "none"
    by_step = {record.get("step"): record for record in logged}
    for record in fresh if alike else fresh[:FIRST]:
        known = by_step.get(record["step"], {})
        for name in (n for n in SAME if n in record or n in known):
            now, then = record.get(name), known.get(name)
            both = isinstance(now, int | float) and isinstance(then, int | float)
            close = both and abs(now - then) <= RELATIVE * max(abs(now), abs(then))
            if now != then and (alike or not close):
                return f"{name} = {now} in step {record['step']}", f"{then}"
    return None


def _training(suite: Suite, run: Run, artefact: Artefact) -> Iterator[Finding]:
    answer, path = first_steps(suite, run), str(artefact.folder / "history.jsonl")
    numbers = suite.affected(artefact)
    if isinstance(answer, str):
        told = ("repeated steps", answer, "the replay could not be done")
        yield Finding(ID, INCOMPLETE, path, *told, run.slug, numbers)
    elif answer is not None:
        recorded = artefact.predicate["internalParameters"]
        repeats = switches(
            run.spec.execution
        ).deterministic  # else kernels are others the next time
        alone = artefact.predicate["facts"].get("processes") == 1
        alike = repeats and alone and _same_machine(recorded, answer.get("machine") or {})
        logged = suite.history(artefact)
        middle = [answer["middle"]] if answer.get("middle") else []
        problem = losses_differ(logged, answer["records"], alike)
        if problem or (middle and (problem := losses_differ(logged, middle, alike))):
            message = "repeated from its checkpoint, training gives another log"
            yield Finding(ID, BLOCKING, path, *problem, message, run.slug, numbers)
        else:
            suite.depth.done.add(run.slug)


def check(suite: Suite) -> list[Finding]:
    """Compare records with each other and, at L3, samples with what computing them again gives."""
    findings = []
    for name in banks_needed(suite.params):
        job = bank_job(suite.params, name)
        bank = suite.records.current(job.stage, job.name, job.spec)
        if bank is None:
            continue  # A01 and A05 report it
        message, numbers = "the bank was not drawn as it says", suite.dependents(job.stage, name)
        for told in _record(suite, name, bank):
            findings.append(Finding(ID, BLOCKING, *told, message, name, numbers))
        if name in chosen_banks(suite):
            findings += _candidates(suite, name, bank)
    for run in chosen_runs(suite):
        job = pretrain_job(run)
        artefact = suite.records.current(job.stage, job.name, job.spec)
        findings += _training(suite, run, artefact)
    return findings
