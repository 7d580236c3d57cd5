"""The pretraining loop: every method, with or without positives. CLSP is a method plus a bank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsp.config.labels import spec_uses_labels
from clsp.config.schema import RunSpec
from clsp.data.prepared import open_prepared
from clsp.models.encoder import save_encoder
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.feed import Feed
from clsp.pretrain.journal import Journal
from clsp.pretrain.losses.alignment import alignment
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.pretrain.setup import Setup, set_up
from clsp.pretrain.watch import Watch, watched
from clsp.runtime.canonical import sha256_array, sha256_json
from clsp.runtime.checkpoint import save_tensors, tensors_sha256
from clsp.runtime.device import resolve
from clsp.runtime.errors import DivergedError
from clsp.runtime.history import History
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch


@dataclass(frozen=True)
class Taken:
    """What one step leaves for the log.

    Attributes:
        known: Values known on the host.
        scalars: Values on the device: the method's terms, the alignment, the loss.
        terms: Names of the method's own terms; the loss is their sum plus the weighted alignment.
        done: What the method gave.
    """

    known: dict[str, float]
    scalars: dict[str, Tensor]
    terms: list[str]
    done: Step


def objective(step: Step, weight: float) -> dict[str, Tensor]:
    """The loss of a step and what it is made of.

    loss = sum of the method's terms + weight * alignment(z_anchor, z_positive)   (methods.md 2.1)

    The sum is taken in float64, so that the logged parts add up to the logged loss.

    Args:
        step: From the method.
        weight: lambda; without a positive there is no alignment term.
    """
    parts = {name: term.double() for name, term in step.terms.items()}
    loss = torch.stack(list(parts.values())).sum()
    if step.z_positive is not None:
        parts["alignment"] = alignment(step.z_anchor, step.z_positive).double()
        loss = loss + weight * parts["alignment"]
    return {**parts, "loss": loss}


def gradient_norm(setup: Setup) -> Tensor:
    """Euclidean norm of all gradients together; not finite if any of them is not."""
    grads = [p.grad for p in setup.method.parameters() if p.grad is not None]
    return torch.stack(torch._foreach_norm(grads)).norm()


def train_step(setup: Setup, batch: Batch, step: int) -> Taken:
    """One optimizer step.

    Raises:
        DivergedError: If the loss or a gradient is not finite; no weight has been updated then.
    """
    moment = setup.moment(step)
    hook = getattr(setup.method, "before_step", None)
    known = hook(moment) if hook else {}
    done = setup.method.step(batch)
    parts = objective(done, setup.spec.alignment_weight)
    setup.optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    if hasattr(setup.method, "before_update"):
        setup.method.before_update(moment)
    norm = gradient_norm(setup)
    if not bool(torch.isfinite(parts["loss"]) & torch.isfinite(norm)):
        found = ", ".join(f"{name} {part.item():g}" for name, part in parts.items())
        raise DivergedError(
            f"step {step} (epoch {moment.epoch}): not finite ({found}, gradient norm "
            f"{norm.item():g}), so training stopped before the update; the learning rate was "
            f"{setup.optimizer.param_groups[0]['lr']:g}"
        )
    setup.optimizer.step()
    return Taken(known, {**parts, "gradient_norm": norm}, sorted(done.terms), done)


@dataclass
class Course:
    """A run under way: what is trained, and everything that watches and records it."""

    setup: Setup
    watch: Watch
    position: Position
    journal: Journal
    resume: Resume

    def advance(self, batch: Batch) -> Taken:
        """Take one step on the given batch and log it; `position` moves along.

        Raises:
            DivergedError: If the step diverges, naming the last good state.
        """
        setup, position = self.setup, self.position
        rate = set_learning_rates(
            setup.optimizer, setup.spec.recipe, position.step, setup.per_epoch
        )
        try:
            taken = train_step(setup, batch, position.step)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self.resume.kept}") from None
        scalars = {**taken.scalars, **self.watch.each_step(taken.done, batch.index)}
        if (position.step + 1) % setup.per_epoch == 0:
            scalars |= self.watch.each_epoch(taken.done)
        known = {"epoch": setup.moment(position.step).epoch, "lr": rate, **taken.known}
        self.journal.add(position.step, known, scalars)
        position.terms = taken.terms
        position.step += 1
        return taken

    def keep(self) -> None:
        """Take the middle checkpoint when it is due, and save what a killed run needs.

        State is saved by the clock, and once after the first epoch, so that a run that diverges
        leaves a good one.
        """
        setup, position = self.setup, self.position
        if position.step == setup.middle:
            position.middle = snapshot(setup.method)
        if self.resume.due() or position.step == setup.per_epoch:
            self.journal.flush()
            position.records = self.journal.records
            self.resume.save(position)

    def train(self) -> None:
        """Run all remaining steps.

        Raises:
            DivergedError: If a step diverges.
        """
        setup, position, spec = self.setup, self.position, self.setup.spec
        feed = Feed(setup)
        label = f"pretrain {spec.dataset} {spec.method} {spec.positives} s{spec.seed}"
        with Progress(label, setup.steps, "step", position.step) as bar:
            for epoch in range(position.step // setup.per_epoch, spec.recipe.epochs):
                while position.step < (epoch + 1) * setup.per_epoch:
                    taken = self.advance(feed.batch(position.step))
                    self.keep()
                    bar.step(1, **({"loss": taken.scalars["loss"].item()} if bar.due() else {}))
                self.journal.flush()
                self.resume.refuse_broken(position.step)
                self.watch.judge(epoch, watched(taken.done).shape[1], self.journal.records[-1])


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
