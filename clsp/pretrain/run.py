"""Stage pretrain-encoder: every method, with or without positives. CLSP is a method plus a bank."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsp.config.execution import switches
from clsp.config.labels import spec_uses_labels
from clsp.config.schema import RunSpec
from clsp.data.prepared import open_prepared
from clsp.models.encoder import save_encoder
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.journal import Journal
from clsp.pretrain.loop import Course
from clsp.pretrain.resume import LOG, Resume, snapshot
from clsp.pretrain.room import fitting, memory_facts
from clsp.pretrain.setup import Setup, set_up
from clsp.pretrain.sharing import check_shared
from clsp.pretrain.watch import Watch
from clsp.runtime.canonical import sha256_array, sha256_json
from clsp.runtime.checkpoint import forget_state, save_tensors, tensors_sha256
from clsp.runtime.device import processes, resolve
from clsp.runtime.errors import ClspError
from clsp.runtime.history import StepLog, last_records
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch
from clsp.runtime.team import ALONE, Team, launch


@dataclass(frozen=True)
class Job:
    """What the processes of one job share: the stage's arguments.

    Attributes:
        spec: Of the run.
        dataset: Prepared.
        given: Artefacts that the positives read, by kind: "bank" and "pairs".
        outputs: Paths by the names of the stage's arguments.
        scratch: Folder of the step log and the resume state.
    """

    spec: RunSpec
    dataset: Artefact
    given: dict[str, list[Artefact]]
    outputs: dict[str, Path]
    scratch: Path

    @property
    def read(self) -> list[Artefact]:
        """Everything that the positives read."""
        return [*self.given["bank"], *self.given["pairs"]]


def _fingerprint(spec: RunSpec, inputs: list[Artefact]) -> str:
    subjects = [artefact.statement["subject"] for artefact in inputs]
    return sha256_json([spec.canonical(), subjects])


def _health(record: dict[str, Any]) -> dict[str, float]:
    """The last values of everything that is watched."""
    watched = (
        "embedding_std",
        "effective_rank",
        "teacher_distance",
        "neighbour_label_share",
        "gradient_norm",
    )
    return {name: record[name] for name in watched if name in record}


def _outcome(
    setup: Setup,
    initial: str,
    final: str,
    terms: list[str],
    records: list[dict[str, Any]],
    conditioned: bool,
) -> Outcome:
    """What the run reports.

    Args:
        setup: Of the run.
        initial: Digest of the method before the first step; `final` after the last.
        final: See initial.
        terms: Names of the method's loss terms.
        records: Of the step log, those of the last epoch.
        conditioned: Whether its bank or pairs were made with the help of labels.
    """
    spec, batch = setup.spec, setup.spec.recipe.batch_size
    losses = [record["loss"] for record in records]
    counted = setup.method.counters() if hasattr(setup.method, "counters") else {}
    trained = [p for p in setup.method.parameters() if p.requires_grad]
    first = epoch_order(len(setup.anchors), spec.seed, 0)[:batch]
    labels = {**spec_uses_labels(spec), "artefact": conditioned}
    facts: dict[str, Any] = {
        "init_sha256": initial,
        "final_sha256": final,
        "first_batch_sha256": sha256_array(first),
        "steps": setup.steps,
        "terms": terms,  # the loss is their sum, plus lambda times the alignment
        "parameters": {
            "trained": sum(p.numel() for p in trained),
            "encoder": sum(p.numel() for p in setup.method.encoder.parameters()),
        },
        "forward": spec.method_options.get("forward"),
        "uses_labels": labels,
        "label_free": not any(labels.values()),
        "recipe_family": spec.recipe.family,
        "execution": switches(spec.execution).canonical(),
        "aligned": setup.method.ALIGNED,
        "health": _health(records[-1]),
        "normalisation": setup.statistics.canonical(),
        "processes": setup.team.size,
        "batch_norm": spec.batch_norm,
    }
    counters = {"optimizer_steps": setup.steps, "ema_updates": 0, "samples": setup.steps * batch}
    return Outcome({"pretrain/loss": sum(losses) / len(losses)}, {**counters, **counted}, facts)


def _checkpoint(path: Path, tensors: dict[str, Tensor], step: int, setup: Setup) -> None:
    metadata = {
        "step": str(step),
        "epoch": str(step // setup.per_epoch),
        "spec_sha256": sha256_json(setup.spec.canonical()),
    }
    save_tensors(path, tensors, metadata)


def pretrain_encoder(
    spec: RunSpec,
    dataset: Input,
    bank: Inputs,
    pairs: Inputs,
    encoder: Output,
    start: Output,
    middle: Output,
    final: Output,
    history: Output,
    scratch: Scratch,
) -> Outcome:
    """Pretrain one encoder on the training split of a dataset.

    Labels reach a method or a positive source only if it says that it uses them, and the manifest
    then says so; besides, they are counted for the log (clsp/pretrain/watch.py).

    With CLSP_PROCESSES=n each batch is shared by n processes, each on a GPU of its own.

    Raises:
        ConfigError: If the set-up cannot work, or several processes cannot share the run.
        DataError: If an input or an earlier state is damaged or of something else, or there are
            fewer GPUs than processes.
        DivergedError: If the loss, its gradient or a weight stops being finite.
        ClspError: If one of several processes dies.
    """
    outputs = {
        "encoder": encoder,
        "start": start,
        "middle": middle,
        "final": final,
        "history": history,
    }
    job, size = Job(spec, dataset, {"bank": bank, "pairs": pairs}, outputs, scratch), processes()
    if size == 1:
        return work(job, ALONE)
    check_shared(spec, size)  # refused here rather than in each process
    return launch(work, job, size, scratch, "pretrain-encoder")


def work(job: Job, team: Team) -> Outcome | None:
    """What one process does; process 0 writes the outputs and reports."""
    spec, outputs = job.spec, job.outputs
    prepared = open_prepared(job.dataset)
    device = resolve(switches(spec.execution).deterministic)
    setup = set_up(spec, prepared, job.given, device, team)
    labels = torch.from_numpy(prepared.split("train").labels.copy()).to(device)
    watch = Watch(setup.method, labels, spec.recipe.epochs)
    initial = snapshot(setup.method)
    fingerprint = _fingerprint(spec, [job.dataset, *job.read])
    resume = Resume(job.scratch, fingerprint, setup.method, setup.optimizer, team)
    position = resume.restore()
    if team.size > 1:
        _agreed(snapshot(setup.method), position.step, team)
    written = None
    if team.leads:
        _checkpoint(outputs["start"], initial, 0, setup)
        if position.step == 0:
            forget_state(job.scratch)  # of another spec or input: it counts on another step log
        written = StepLog(job.scratch / LOG, position.log_bytes)
        outputs["history"].unlink(missing_ok=True)
        outputs["history"].symlink_to(written.path.resolve())  # so that it can be followed
    with fitting(setup) as needed:
        Course(setup, watch, position, Journal(written), resume).train()
    trained = snapshot(setup.method)
    digests = tensors_sha256(initial), _agreed(trained, position.step, team)
    if not team.leads:
        return None
    _checkpoint(outputs["middle"], position.middle, setup.middle, setup)
    _checkpoint(outputs["final"], trained, position.step, setup)
    save_encoder(outputs["encoder"], setup.method.encoder, spec.encoder, setup.statistics)
    outputs["history"].unlink()
    shutil.copyfile(job.scratch / LOG, outputs["history"])
    conditioned = any(read.predicate["facts"]["label_conditioned"] for read in job.read)
    records = last_records(outputs["history"], setup.per_epoch)
    outcome = _outcome(setup, *digests, position.terms, records, conditioned)
    if told := memory_facts(needed, device):
        outcome.facts["memory"] = told
    return outcome


def _agreed(state: dict[str, Tensor], step: int, team: Team) -> str:
    """Digest of the method's state after so many steps, on which all processes must agree.

    Raises:
        ClspError: If they do not, in a message that is the same in all of them.
    """
    digest = tensors_sha256(state)
    found = team.gather(f"step {step}, {digest[:16]}")
    if len(set(found)) > 1:
        raise ClspError(
            f"pretrain-encoder: {team.size} processes hold different weights, queues or statistics "
            f"({'; '.join(found)}); they must be equal, so no result was written"
        )
    return digest
