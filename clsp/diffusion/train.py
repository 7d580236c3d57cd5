"""Stage train-denoiser: the diffusion model (methods.md 2.1; arXiv:2006.11239)."""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from clsp.config.denoisers import DenoiserSpec
from clsp.data.catalog import UNLABELLED
from clsp.data.prepared import Images, open_images, open_prepared, window
from clsp.diffusion.feed import Feed, Pixels
from clsp.diffusion.loop import Loop
from clsp.diffusion.schedule import build_schedule, pipeline_index
from clsp.diffusion.snapshots import Snapshots
from clsp.diffusion.state import LOG, Training, begin
from clsp.runtime.canonical import sha256_json
from clsp.runtime.checkpoint import forget_state, tensors_sha256
from clsp.runtime.device import processes, resolve
from clsp.runtime.errors import ClspError, ConfigError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Input, Outcome, Output, Scratch
from clsp.runtime.team import Team, launch


@dataclass(frozen=True)
class Job:
    """What the processes of one job share: the stage's arguments."""

    spec: DenoiserSpec
    dataset: Artefact
    outputs: dict[str, Path]
    scratch: Path


@dataclass(frozen=True)
class Data:
    """The training split, as the denoiser sees it.

    Attributes:
        images: uint8 (N, H, W, 3).
        labels: Classes, int64 (N,), of a class-conditional denoiser; otherwise never opened.
        classes: How many there are, or None.
        depends: What training depends on: digests, and which rows are for training.
    """

    images: Images
    labels: np.ndarray | None
    classes: int | None
    depends: list[Any]


def open_data(spec: DenoiserSpec, dataset: Artefact) -> Data:
    """Open the training split, labels only where the denoiser is class-conditional.

    Raises:
        ConfigError: If a batch is larger than the split, or labels are wanted that images do not
            have, or that are several per image.
        DataError: If a file is damaged.
    """
    if spec.label_drop is None:
        whole, card = open_images(dataset)
        images, labels, classes = window(whole, *card["splits"]["train"]), None, None
    else:
        prepared = open_prepared(dataset)
        split, card = prepared.split("train"), prepared.card
        images, labels, classes = split.images, split.labels, len(prepared.classes)
        if prepared.multilabel:
            raise ConfigError(
                f"denoiser: label_drop makes it class-conditional, but images of dataset "
                f"{spec.dataset} may show several classes"
            )
        if unlabelled := int((labels == UNLABELLED).sum()):
            raise ConfigError(
                f"denoiser: label_drop makes it class-conditional, but {unlabelled} of the "
                f"{len(labels)} training images of dataset {spec.dataset} have no label"
            )
    if spec.batch_size > len(images):
        raise ConfigError(
            f"denoiser: batch_size {spec.batch_size} is larger than the {len(images)} training "
            f"images of dataset {spec.dataset}"
        )
    depends = [card["images_sha256"], card["splits"]["train"]]
    depends += [] if labels is None else [card["labels_sha256"]]
    return Data(images, labels, classes, depends)


def memory_layout(device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory: channels last on GPUs.

    On a CPU it is no faster: steps of networks at 8 and 32 pixels took 0 to 4 % longer. It changes
    rounding, and where dropout draws in the order of memory, its draws.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def train_denoiser(
    spec: DenoiserSpec,
    dataset: Input,
    model_index: Output,
    unet: Output,
    raw: Output,
    scheduler: Output,
    history: Output,
    snapshots: Output,
    scratch: Scratch,
) -> Outcome:
    """Train the denoiser of one dataset; without `label_drop` its labels are never read.

    Plain epsilon MSE over all pixels, times uniform, Adam, linear warm-up, gradient clipping and an
    EMA of the weights from step 0. The folder loads with diffusers' DDPMPipeline.from_pretrained;
    unet/ holds the EMA weights, raw/ those the optimizer left, snapshots/ what was seen on the way.

    With CLSP_PROCESSES=n each batch is shared by n processes, each on a GPU of its own.

    Raises:
        ConfigError: If a batch is larger than the training split or cannot be shared equally, the
            image size does not fit, or encoded images would take too much memory when decoded.
        DivergedError: If the loss or its gradient stops being finite.
        ClspError: If one of several processes dies.
    """
    outputs = {
        "model_index": model_index,
        "unet": unet,
        "raw": raw,
        "scheduler": scheduler,
        "history": history,
        "snapshots": snapshots,
    }
    job, size = Job(spec, dataset, outputs, scratch), processes()
    if spec.batch_size % size:
        raise ConfigError(
            f"denoiser: batch_size {spec.batch_size} cannot be shared equally by {size} processes"
        )
    data = open_data(spec, dataset)  # refused here rather than in each process
    spec.check_size(data.images.shape[1])
    return work(job, Team()) if size == 1 else launch(work, job, size, scratch, "train-denoiser")


def work(job: Job, team: Team) -> Outcome | None:
    """What one process does; process 0 writes the outputs and reports."""
    spec, device = job.spec, resolve()
    data = open_data(spec, job.dataset)
    layout = memory_layout(device)
    training = begin(spec, data.images.shape[1], data.classes, device, layout)
    key = sha256_json([spec.canonical(), *data.depends])
    length = training.restore(job.scratch, key, team.size)
    team.gather("read")  # all have, before the state of another key, whose log goes, is forgotten
    if team.leads and training.step == 0:
        forget_state(job.scratch)
    pixels = Pixels(data.images, spec.dataset, device)
    feed = Feed(pixels, len(data.images), data.labels, spec, team)
    written = snapshots = None
    if team.leads:
        written = StepLog(job.scratch / LOG, length)
        job.outputs["history"].symlink_to(written.path.resolve())  # so that it can be followed
        done = training.step // feed.per_epoch
        snapshots = Snapshots(job.scratch, spec, data.classes, done)
    Loop(training, spec, feed, team, written, snapshots, job.scratch, key, layout).run()
    digests = _digests(training, team)
    if not team.leads:
        return None
    _write(job, training, snapshots)
    return _outcome(job, training, data, digests, team)


def _digests(training: Training, team: Team) -> dict[str, str]:
    """Digests of both sets of weights, on which all processes must agree.

    Raises:
        ClspError: If they do not.
    """
    digests = {
        "ema": tensors_sha256(training.ema.state_dict()),
        "raw": tensors_sha256(training.unet.state_dict()),
    }
    found = set(team.gather(sha256_json(digests)))
    if len(found) > 1:
        raise ClspError(
            f"train-denoiser: {team.size} processes ended with {len(found)} different sets of "
            "weights; they must be equal, so nothing was written"
        )
    return digests


def _write(job: Job, training: Training, snapshots: Snapshots) -> None:
    outputs = job.outputs
    outputs["model_index"].write_text(pipeline_index(), encoding="utf-8")
    for name, module in (("unet", training.ema), ("raw", training.unet)):
        module.to(memory_format=torch.contiguous_format).save_pretrained(outputs[name])
    build_schedule(job.spec).save_pretrained(outputs["scheduler"])
    snapshots.hand_over(outputs["snapshots"])
    outputs["history"].unlink()
    shutil.copyfile(job.scratch / LOG, outputs["history"])


def last_epoch_loss(records: list[dict[str, Any]], first: int) -> float:
    """Mean loss over the steps from `first` on.

    Args:
        records: Of the step log, in order; each stands for the steps since the one before it.
        first: 0-based step at which the last epoch begins.
    """
    steps = [-1, *(record["step"] for record in records)]
    shares = [max(0, end - max(start, first - 1)) for start, end in pairwise(steps)]
    return fmean([record["loss"] for record in records], shares)


def _outcome(
    job: Job, training: Training, data: Data, digests: dict[str, str], team: Team
) -> Outcome:
    spec, per_epoch = job.spec, len(data.images) // job.spec.batch_size
    records = read_history(job.outputs["history"])
    counters = {
        "steps": training.step,
        "epochs": spec.epochs,
        "ema_updates": training.ema_updates,
        "images": len(data.images),
        "parameters": sum(weight.numel() for weight in training.weights),
    }
    facts: dict[str, Any] = {
        "sampled_weights": "ema",
        "tensors_sha256": digests,
        "label_conditioned": spec.uses_labels,
        "processes": team.size,
    }
    if spec.uses_labels:
        facts |= {"classes": data.classes, "label_drop": spec.label_drop}
    loss = last_epoch_loss(records, training.step - per_epoch)
    return Outcome({"denoiser/loss": loss}, counters, facts)
