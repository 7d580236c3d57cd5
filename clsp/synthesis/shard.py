"""Stage generate-shard: candidates for a contiguous part of the anchors, streamed to disk."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsp.config.schema import GENERATORS, BankSpec
from clsp.data.bank import identity
from clsp.data.prepared import Prepared
from clsp.diffusion.pixels import to_signed
from clsp.models.denoiser import Denoiser, load_denoiser
from clsp.runtime.canonical import sha256_json
from clsp.runtime.device import resolve
from clsp.runtime.errors import DataError
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load
from clsp.runtime.stage import Input, Outcome, Output, Scratch
from clsp.synthesis.contract import Request
from clsp.synthesis.network import MEMORY_FORMAT, Network, images_at_once
from clsp.synthesis.parts import anchors_of
from clsp.synthesis.storage import open_anchors, release
from clsp.synthesis.stream import ARRAY, Writer, open_stream


def batches(
    total: int, candidates: int, largest: int, equal: bool, done: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Runs of a shard's (anchor, candidate) pairs that are drawn together.

    A batch holds whole anchors where it can. All batches of compiled code have one size, since
    another would compile it anew: the last is filled up with pairs that are then dropped.

    Args:
        total: Pairs of the shard, numbered anchor by anchor.
        candidates: K.
        largest: Pairs of a batch at most.
        equal: Whether all batches have one size.
        done: Pairs that are drawn already.

    Yields:
        Numbers of the pairs, int64 (B,), and how many of them, from the first, are wanted.
    """
    size = min(largest // candidates * candidates or largest, total)
    for low in range(done, total, size):
        wanted = min(size, total - low)
        filled = size if equal else wanted
        yield np.arange(low, low + filled) % total, wanted


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy without making the host wait for a GPU that is still at the batch before."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def request_of(
    pairs: np.ndarray, start: int, spec: BankSpec, prepared: Prepared, device: torch.device
) -> Request:
    """Look up anchors, and their labels where the generator uses them.

    Args:
        pairs: Numbers of (anchor, candidate) pairs of a shard, int64 (B,).
        start: First anchor of the shard.
        spec: For K, seed and generator.
        prepared: The dataset.
        device: Where candidates are drawn.
    """
    split = prepared.split("train")
    anchors, which = np.unique(start + pairs // spec.candidates, return_inverse=True)
    images = _to_device(np.ascontiguousarray(split.images[anchors]), device)
    labels = split.labels[anchors] if spec.settings().uses_labels else None
    return Request(
        images=to_signed(images),
        anchors=_to_device(anchors, device),
        which=_to_device(which, device),
        candidates=_to_device(pairs % spec.candidates, device),
        labels=None if labels is None else _to_device(labels, device),
        seed=spec.seed,
    )


def check_fit(spec: BankSpec, denoiser: Denoiser, prepared: Prepared, where: object) -> None:
    """Refuse a denoiser of other images, or labels that it does not know.

    Raises:
        ConfigError: If the steps do not fit the denoiser, or it knows no classes where they are
            needed.
        DataError: If sizes or classes differ, or training images have no label.
    """
    split = prepared.split("train")
    size = split.images.shape[1:3]
    if (denoiser.size, denoiser.size) != size:
        raise DataError(
            f"{where}: the denoiser makes {denoiser.size}x{denoiser.size} images, but "
            f"dataset {spec.dataset} has {size[0]}x{size[1]}"
        )
    if not spec.settings().uses_labels:
        return
    classes = len(prepared.classes)
    if prepared.multilabel or denoiser.classes != classes:
        kind = (
            "labels of several classes per image" if prepared.multilabel else f"{classes} classes"
        )
        raise DataError(
            f"{where}: generator {spec.generator} needs a denoiser of the classes of its anchors; "
            f"the denoiser has {denoiser.classes or 'none'}, dataset {spec.dataset} has {kind}"
        )
    if missing := int((split.labels < 0).sum()):
        raise DataError(
            f"generator {spec.generator} uses labels, but {missing} of the {len(split)} training "
            f"images of dataset {spec.dataset} have none"
        )


def generate_shard(
    spec: BankSpec, shard: str, denoiser: Input, dataset: Input, images: Output, scratch: Scratch
) -> Outcome:
    """Draw K candidates for each anchor of one shard; labels are read if the generator uses them.

    The shards of a bank split the training images contiguously. Batches run over (anchor,
    candidate) pairs and go straight to disk, so memory does not depend on the number of anchors.

    Raises:
        ConfigError: If the shard's name or the generator's settings are wrong.
        DataError: If the denoiser was trained on images of another size or on other classes.
    """
    settings, device = spec.settings(), resolve()
    prepared, loaded = open_anchors(dataset, settings.uses_labels), load_denoiser(denoiser, device)
    check_fit(spec, loaded, prepared, denoiser.folder)
    anchors = prepared.split("train").images
    start, stop = anchors_of(shard, len(anchors))
    belonging = identity(prepared)
    key = sha256_json([spec.canonical(), shard, loaded.sha256, belonging, device.type])
    total = (stop - start) * spec.candidates
    shape = (stop - start, spec.candidates, *anchors.shape[1:])
    stream, done = open_stream(scratch, key, shape)
    generator, network = load(GENERATORS, spec.generator, "generator"), Network(loaded, settings)
    largest, equal = images_at_once(settings, loaded.size, device), bool(settings.compile)
    with (
        Progress(f"generate shard {shard}", total, "image", done) as progress,
        Writer(stream, progress.step) as writer,
    ):
        for pairs, wanted in batches(total, spec.candidates, largest, equal, done):
            request = request_of(pairs, start, spec, prepared, device)
            release(anchors)
            writer.put(int(pairs[0]), generator.generate(network, request, settings)[:wanted])
    shutil.move(scratch / ARRAY, images)
    weights = "ema" if denoiser.stage == "train-denoiser" else "imported"
    facts = _facts(spec, (start, stop), loaded, weights, belonging, device)
    return Outcome({}, {"images": total}, facts)


def _facts(
    spec: BankSpec,
    anchors: tuple[int, int],
    denoiser: Denoiser,
    weights: str,
    belonging: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    settings = spec.settings()
    solver = settings.solver()
    return {
        "anchors": list(anchors),  # first, and one after the last
        "candidates": spec.candidates,
        "denoiser": {"tensors_sha256": denoiser.sha256, "weights": weights},
        "dataset": belonging,
        "sampler": {
            "generator": spec.generator,
            **spec.options,
            "scheduler": solver.scheduler,
            "steps": solver.steps,  # in the end, whatever the options ask for
            "eta": solver.eta,
            "precision": settings.precision or "full",
            "compile": bool(settings.compile),
            "memory_format": MEMORY_FORMAT,
        },
        "noise": "philox4x32-10; key (seed, purpose), counter (block, anchor, candidate, step)",
        "device": device.type,
        "images_at_once": images_at_once(settings, denoiser.size, device),
        "label_conditioned": settings.uses_labels or denoiser.classes is not None,
    }
