"""The pretraining loop: every method, with or without positives. CLSP is a method plus a bank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsp.config.schema import METHODS, POSITIVES, Normalisation, RunSpec
from clsp.config.strict import parse
from clsp.data.prepared import Prepared, open_prepared
from clsp.data.views import make_views
from clsp.models.encoder import Encoder, normalise, save_encoder
from clsp.pretrain.anchors import Anchors, epoch_order, load_anchors
from clsp.pretrain.contract import Method, Source, Step
from clsp.pretrain.journal import Journal
from clsp.pretrain.losses import alignment, embedding_spread
from clsp.pretrain.optim import build_optimizer, learning_rate, set_learning_rate
from clsp.pretrain.resume import Position, Resume, snapshot
from clsp.runtime.canonical import sha256_array, sha256_json
from clsp.runtime.checkpoint import save_tensors, tensors_sha256
from clsp.runtime.device import resolve
from clsp.runtime.errors import ClspError, ConfigError
from clsp.runtime.history import History
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load
from clsp.runtime.rng import key_of
from clsp.runtime.stage import Input, Inputs, Outcome, Output, Scratch

BESIDE_TERMS = {"alignment", "loss", "embedding_std"}  # logged beside the method's own terms


@dataclass(frozen=True)
class Setup:
    """Everything one run trains with; nothing in it changes but the method and the optimizer."""

    spec: RunSpec
    anchors: Anchors
    source: Source
    method: Method
    optimizer: torch.optim.Optimizer
    statistics: Normalisation
    view_key: int

    @property
    def per_epoch(self) -> int:
        """Steps per epoch; a last incomplete batch is dropped."""
        return len(self.anchors) // self.spec.recipe.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.per_epoch * self.spec.recipe.epochs

    @property
    def middle(self) -> int:
        """Step after which the middle checkpoint is taken: half of the epochs are done."""
        return self.per_epoch * max(1, self.spec.recipe.epochs // 2)


def build_method(spec: RunSpec) -> Method:
    """The method around a fresh encoder, on the CPU.

    Weights come from torch's global stream, seeded here and put back afterwards, because torch's
    layers take no generator.

    Raises:
        ConfigError: If the options do not fit the method or the batch size.
    """
    module = load(METHODS, spec.method, "method")
    config = parse(module.Config, spec.method_options, f"options of method {spec.method}")
    if hasattr(config, "check_batch"):
        try:
            config.check_batch(spec.recipe.batch_size)
        except ValueError as error:
            raise ConfigError(f"method {spec.method}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(spec.seed, "weights"))
        return module.Method(Encoder(spec.encoder), config, spec.seed)


def build_source(spec: RunSpec, anchors: Anchors, banks: list[Artefact]) -> Source:
    """The positive source of a run.

    Raises:
        ConfigError: If the banks given are not what the source needs.
        DataError: If the bank belongs to another dataset.
    """
    if len(banks) > 1:
        raise ConfigError(f"--bank: expected at most one bank, found {len(banks)}")
    module = load(POSITIVES, spec.positives, "positive source")
    config = parse(module.Config, spec.positives_options, f"options of source {spec.positives}")
    return module.Source(config, anchors, banks[0] if banks else None, spec.seed)


def set_up(spec: RunSpec, dataset: Prepared, banks: list[Artefact], device: torch.device) -> Setup:
    """Build everything, and refuse before training what cannot work.

    Raises:
        ConfigError: If the batch is larger than the data, or options do not fit.
        DataError: If the bank belongs to another dataset.
    """
    anchors = load_anchors(dataset, device)
    batch = spec.recipe.batch_size
    if batch > len(anchors):
        raise ConfigError(
            f"recipe.batch_size {batch} exceeds the {len(anchors)} training images "
            f"of dataset {spec.dataset}"
        )
    source = build_source(spec, anchors, banks)
    # Channels last: the layout convolutions are fastest in, on CPUs by a fifth.
    method = build_method(spec).to(device, memory_format=torch.channels_last).train()
    statistics = spec.normalisation or Normalisation(
        mean=tuple(dataset.mean), std=tuple(dataset.std)
    )
    optimizer = build_optimizer(method, spec.recipe)
    view_key = key_of(spec.seed, "view")
    return Setup(spec, anchors, source, method, optimizer, statistics, view_key)


def batch_views(setup: Setup, index: Tensor, epoch: int) -> tuple[list[Tensor], Tensor | None]:
    """Views 1 and 2 of the anchors and, as view 3 of the same pipeline, the positive.

    Args:
        setup: Gives images, source and pipeline.
        index: Numbers of the anchors, int64 (B,).
        epoch: From 0.

    Returns:
        Two normalised views, (B, 3, H, W) each, and the positive or None.
    """
    anchors = setup.anchors.images[index]  # uint8 (B, H, W, 3)
    positive = setup.source.batch(index, epoch)
    shown = [anchors, anchors] if positive is None else [anchors, anchors, positive]
    view = torch.arange(len(shown), device=index.device).repeat_interleave(len(index))
    pixels = make_views(
        torch.cat(shown),
        index.repeat(len(shown)),
        epoch,
        view,
        setup.view_key,
        setup.spec.recipe.views,
    )
    parts = list(normalise(pixels, setup.statistics).chunk(len(shown)))
    return parts[:2], None if positive is None else parts[2]


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


def train_step(
    setup: Setup, index: Tensor, epoch: int, step: int
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """One optimizer step.

    Returns:
        Values known on the host and scalars on the device, for the step log.

    Raises:
        ClspError: If the loss is not finite; nothing has been updated then.
    """
    hook = getattr(setup.method, "before_step", None)
    known = hook(step, setup.steps) if hook else {}
    views, positive = batch_views(setup, index, epoch)
    done = setup.method.step(views, positive)
    parts = objective(done, setup.spec.alignment_weight)
    # Waits for the forward pass only: backward and the next step's views are queued behind it.
    if not bool(torch.isfinite(parts["loss"])):
        found = ", ".join(f"{name} {part.item():g}" for name, part in parts.items())
        raise ClspError(
            f"step {step} (epoch {epoch}): the loss is not finite ({found}), so training stopped "
            f"before the update; the learning rate was {setup.optimizer.param_groups[0]['lr']:g}"
        )
    setup.optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    setup.optimizer.step()
    return known, {**parts, "embedding_std": embedding_spread(done.z_anchor)}


def train(setup: Setup, position: Position, journal: Journal, resume: Resume) -> None:
    """Run all remaining steps; `position` moves along."""
    spec, batch = setup.spec, setup.spec.recipe.batch_size
    device = setup.anchors.images.device
    label = f"pretrain {spec.dataset} {spec.method} {spec.positives} s{spec.seed}"
    with Progress(label, setup.steps, "step", position.step) as bar:
        for epoch in range(position.step // setup.per_epoch, spec.recipe.epochs):
            order = epoch_order(len(setup.anchors), spec.seed, epoch)
            order = torch.from_numpy(order).to(device)
            rate = learning_rate(spec.recipe, epoch)
            set_learning_rate(setup.optimizer, rate)
            for number in range(position.step % setup.per_epoch, setup.per_epoch):
                index = order[number * batch : (number + 1) * batch]
                known, scalars = train_step(setup, index, epoch, position.step)
                journal.add(position.step, {"epoch": epoch, "lr": rate, **known}, scalars)
                position.terms = sorted(scalars.keys() - BESIDE_TERMS)
                position.step += 1
                if position.step == setup.middle:
                    position.middle = snapshot(setup.method)
                if resume.due():
                    journal.flush()
                    position.records = journal.records
                    resume.save(position)
                bar.step(1, **({"loss": scalars["loss"].item()} if bar.due() else {}))
            journal.flush()


def _fingerprint(spec: RunSpec, inputs: list[Artefact]) -> str:
    subjects = [artefact.statement["subject"] for artefact in inputs]
    return sha256_json([spec.canonical(), subjects])


def _outcome(setup: Setup, initial: str, final: str, position: Position) -> Outcome:
    spec, batch = setup.spec, setup.spec.recipe.batch_size
    last = [record["loss"] for record in position.records[-setup.per_epoch :]]
    counted = setup.method.counters() if hasattr(setup.method, "counters") else {}
    trained = [p for p in setup.method.parameters() if p.requires_grad]
    first = epoch_order(len(setup.anchors), spec.seed, 0)[:batch]
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
        "label_free": True,  # Anchors holds no labels
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
    encoder: Output,
    start: Output,
    middle: Output,
    final: Output,
    history: Output,
    scratch: Scratch,
) -> Outcome:
    """Pretrain one encoder on the training split of a dataset, without labels."""
    setup = set_up(spec, open_prepared(dataset), bank, resolve())
    initial = snapshot(setup.method)
    _checkpoint(start, initial, 0, setup)
    resume = Resume(scratch, _fingerprint(spec, [dataset, *bank]), setup.method, setup.optimizer)
    position = resume.restore()
    journal = Journal(History(history, position.records))
    train(setup, position, journal, resume)
    trained = snapshot(setup.method)
    _checkpoint(middle, position.middle, setup.middle, setup)
    _checkpoint(final, trained, position.step, setup)
    save_encoder(encoder, setup.method.encoder, spec.encoder, setup.statistics)
    position.records = journal.records
    return _outcome(setup, tensors_sha256(initial), tensors_sha256(trained), position)
