"""Weights are those of the run, they moved, and a moving average followed as it should.

Checkpoints carry step, epoch and settings of the run; their tensors have the recorded digests; the
encoder that is judged is that of the last checkpoint. A moving average was updated in every step,
left its start and is not the online network; a queue stands where so many steps leave it. At L3 the
first steps are repeated and the average compared with its closed form.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from clsp.audit.finding import BLOCKING, Finding
from clsp.audit.replayed import first_steps
from clsp.audit.suite import Suite
from clsp.audit.weights import Tensors, below, digest_of, distance, read_tensors, trained
from clsp.config.grid import Run
from clsp.runtime.canonical import sha256_json
from clsp.runtime.manifest import Artefact

ID = "A16"
SEVERITY = BLOCKING
LEVEL = "L2"
# Share of the online network's way that its average has to go. An average with decay m goes about
# (1 - m) n / 2 of it in n steps: 5e-4 in ten steps of the slowest decay in use, 0.9999.
FOLLOWED = 1e-4
MOVED = 1e-6  # relative change of the encoder's weights; less is rounding, not training
CLOSE = 1e-5  # relative; an average is never so near to the network that it follows
CLOSED_FORM = 1e-6  # relative deviation of a replayed average (audit.md A16)
LATE_QUEUES = ("swav",)  # filled from some epoch on

Problem = tuple[str, str, str]  # file, expected, found


def _metadata(run: Run, artefact: Artefact, name: str, told: dict[str, str]) -> tuple[str, str]:
    """Expected and found step, epoch and settings of a checkpoint."""
    epochs, steps = run.spec.recipe.epochs, artefact.predicate["counters"]["optimizer_steps"]
    half = max(1, epochs // 2)
    epoch = {"start": 0, "middle": half, "final": epochs}[name]
    wanted = {
        "step": str(int(steps) // epochs * epoch),
        "epoch": str(epoch),
        "spec_sha256": sha256_json(artefact.spec),
    }
    return f"{wanted}", f"{ {key: told.get(key) for key in wanted} }"


def _identity(artefact: Artefact, stored: dict[str, Tensors]) -> Iterator[Problem]:
    facts = artefact.predicate["facts"]
    for name, key in (("start", "init_sha256"), ("final", "final_sha256")):
        recorded, found = facts.get(key), digest_of(stored[name])
        if recorded is not None and recorded != found:  # A13 reports that none is recorded
            yield f"checkpoints/{name}.safetensors", f"tensors {recorded}"[:24], found[:16]
    judged, last = stored["encoder"], below(stored["final"], "encoder.")
    if judged.keys() != last.keys() or digest_of(judged) != digest_of(last):
        odd = sorted(judged.keys() ^ last.keys())[:3]
        found = f"other tensors: {', '.join(odd)}" if odd else "other values"
        yield "encoder.safetensors", "the encoder of the last checkpoint", found
    for name, tensors in stored.items():
        bad = [n for n, t in tensors.items() if t.dtype.kind == "f" and not np.isfinite(t).all()]
        if bad:
            yield f"{name}", "finite weights", f"NaN or infinity in {bad[0]}"
    if zero := [n for n, t in trained(judged).items() if t.ndim > 1 and not t.any()]:
        yield "encoder.safetensors", "weights that are not all zero", zero[0]


def _shapes(tensors: Tensors) -> dict[str, tuple[Any, ...]]:
    return {name: (t.dtype.str, *t.shape) for name, t in below(tensors, "encoder.").items()}


def _between(run: Run, stored: dict[str, Tensors]) -> Iterator[Problem]:
    """All checkpoints hold one network, which is another one at every epoch that was kept."""
    shapes = _shapes(stored["start"])
    for name in ("middle", "final"):
        if _shapes(stored[name]) != shapes:
            told = ("the tensors of the first checkpoint", "other names, shapes or types")
            yield f"checkpoints/{name}.safetensors", *told
            return
    epochs, middle = run.spec.recipe.epochs, below(stored["middle"], "encoder.")
    for name in ("start", "final") if epochs > 1 else ("start",):
        if not distance(below(stored[name], "encoder."), middle) > MOVED:
            told = (f"weights unlike those of {name}", "the same")
            yield "checkpoints/middle.safetensors", *told


def _kept(run: Run, final: Tensors) -> Iterator[Problem]:
    """What a method remembers, by its options, is in its last checkpoint."""
    options = run.spec.method_options
    for option, prefix in (("momentum_start", "teacher.network."), ("queue", "queue.")):
        if option in options and not below(final, prefix):
            yield "checkpoints/final.safetensors", f"tensors of {prefix[:-1]}", "none"


def _liveness(stored: dict[str, Tensors], counters: dict[str, Any]) -> Iterator[Problem]:
    start, final = stored["start"], stored["final"]
    way = distance(below(start, "encoder."), below(final, "encoder."))
    if not way > MOVED:
        yield "checkpoints/final.safetensors", "an encoder that training moved", f"by {way:.2g}"
    average = below(final, "teacher.network.")
    if not average:
        return
    steps = counters["optimizer_steps"]
    updates = final.get("teacher.updates")
    found = counters.get("ema_updates"), int(updates) if updates is not None else None
    if found != (steps, steps):
        yield "manifest.json", f"{steps} updates of the average, counted and stored", f"{found}"
    gone = distance(below(start, "teacher.network."), average)
    if not gone > FOLLOWED * way:
        told = f"more than {FOLLOWED:g} of the online network's {way:.3g}"
        yield "checkpoints/final.safetensors", f"an average that followed, by {told}", f"{gone:.3g}"
    own, online = below(final, "teacher.network.0."), below(final, "encoder.")
    if own.keys() & online.keys() and not distance(own, online) > CLOSE:
        told = ("an average unlike the online network", "the same weights")
        yield "checkpoints/final.safetensors", *told


def _queue(run: Run, stored: dict[str, Tensors], steps: int) -> Iterator[Problem]:
    pointer = stored["final"].get("queue.pointer")
    if pointer is None or run.spec.method in LATE_QUEUES:
        return
    size = len(stored["final"]["queue.anchors"])
    if size != run.spec.method_options.get("queue"):
        told = (f"a queue of {run.spec.method_options.get('queue')} rows", f"{size}")
        yield "checkpoints/final.safetensors", *told
        return
    expected = steps * run.spec.recipe.batch_size % size
    if int(pointer) != expected:
        told = (f"a queue at row {expected} of {size}", f"{int(pointer)}")
        yield "checkpoints/final.safetensors", *told


def _problems(run: Run, artefact: Artefact) -> Iterator[Problem]:
    files = {n: f"checkpoints/{n}.safetensors" for n in ("start", "middle", "final")}
    stored: dict[str, Tensors] = {}
    for name, file in {**files, "encoder": "encoder.safetensors"}.items():
        try:
            stored[name], told = read_tensors(artefact.folder / file)
        except (OSError, ValueError) as error:
            yield file, "readable tensors", str(error)
            return
        if name in files:
            expected, found = _metadata(run, artefact, name, told)
            if expected != found:
                yield file, expected, found
    counters = artefact.predicate["counters"]
    yield from _identity(artefact, stored)
    if other := list(_between(run, stored)):
        yield from other
        return  # another network has no way from the first one
    yield from _kept(run, stored["final"])
    yield from _liveness(stored, counters)
    yield from _queue(run, stored, int(counters["optimizer_steps"]))


def _replay(suite: Suite, run: Run) -> Iterator[Problem]:
    answer = first_steps(suite, run)
    if not isinstance(answer, dict):
        return  # below L3, not chosen, or A11 reports why not
    if answer.get("start") is False:  # None: another torch, which may draw other weights
        yield "checkpoints/start.safetensors", "the weights that the seed gives", "others"
    gap = answer.get("teacher_gap")
    if gap is not None and not gap <= CLOSED_FORM:
        yield "history.jsonl", f"an average within {CLOSED_FORM:g} of its closed form", f"{gap:.3g}"


def check(suite: Suite) -> list[Finding]:
    """Look at the tensors of every run."""
    findings = []
    for run, artefact in suite.trainings:
        message, numbers = (
            "the weights are not those that this run leaves",
            suite.affected(artefact),
        )
        findings += [
            Finding(ID, BLOCKING, str(artefact.folder / file), *told, message, run.slug, numbers)
            for file, *told in [*_problems(run, artefact), *_replay(suite, run)]
        ]
    return findings
