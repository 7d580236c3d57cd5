"""Stage pretrain-encoder: every method, with or without positives. CLSP is a method plus a bank."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsp.config.labels import spec_uses_labels
from clsp.config.schema import RunSpec
from clsp.data.prepared import open_prepared
from clsp.models.encoder import save_encoder
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.journal import Journal
from clsp.pretrain.loop import Course
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.setup import Setup, set_up
from clsp.pretrain.watch import Watch
from clsp.runtime.canonical import sha256_array, sha256_json
from clsp.runtime.checkpoint import save_tensors, tensors_sha256
from clsp.runtime.device import resolve
from clsp.runtime.history import History
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch


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
    setup: Setup, initial: str, final: str, position: Position, conditioned: bool
) -> Outcome:
    """What the run reports; `conditioned`: its bank or pairs were made with the help of labels."""
    spec, batch = setup.spec, setup.spec.recipe.batch_size
    last = [record["loss"] for record in position.records[-setup.per_epoch :]]
    counted = setup.method.counters() if hasattr(setup.method, "counters") else {}
    trained = [p for p in setup.method.parameters() if p.requires_grad]
    first = epoch_order(len(setup.anchors), spec.seed, 0)[:batch]
    labels = {**spec_uses_labels(spec), "artefact": conditioned}
    facts: dict[str, Any] = {
        "init_sha256": initial,
        "final_sha256": final,
        "first_batch_sha256": sha256_array(first),
        "steps": setup.steps,
        "terms": position.terms,  # the loss is their sum, plus lambda times the alignment
        "parameters": {
            "trained": sum(p.numel() for p in trained),
            "encoder": sum(p.numel() for p in setup.method.encoder.parameters()),
        },
        "forward": spec.method_options.get("forward"),
        "uses_labels": labels,
        "label_free": not any(labels.values()),
        "recipe_family": spec.recipe.family,
        "aligned": setup.method.ALIGNED,
        "health": _health(position.records[-1]),
        "normalisation": setup.statistics.canonical(),
    }
    counters = {"optimizer_steps": setup.steps, "ema_updates": 0, "samples": setup.steps * batch}
    return Outcome({"pretrain/loss": sum(last) / len(last)}, {**counters, **counted}, facts)


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
    """
    prepared, device = open_prepared(dataset), resolve()
    setup = set_up(spec, prepared, {"bank": bank, "pairs": pairs}, device)
    labels = torch.from_numpy(prepared.split("train").labels.copy()).to(device)
    watch = Watch(setup.method, labels, spec.recipe.epochs)
    initial = snapshot(setup.method)
    _checkpoint(start, initial, 0, setup)
    fingerprint = _fingerprint(spec, [dataset, *bank, *pairs])
    resume = Resume(scratch, fingerprint, setup.method, setup.optimizer)
    position = resume.restore()
    journal = Journal(History(history, position.records))
    Course(setup, watch, position, journal, resume).train()
    trained = snapshot(setup.method)
    _checkpoint(middle, position.middle, setup.middle, setup)
    _checkpoint(final, trained, position.step, setup)
    save_encoder(encoder, setup.method.encoder, spec.encoder, setup.statistics)
    position.records = journal.records
    conditioned = any(read.predicate["facts"]["label_conditioned"] for read in [*bank, *pairs])
    digests = tensors_sha256(initial), tensors_sha256(trained)
    return _outcome(setup, *digests, position, conditioned)
