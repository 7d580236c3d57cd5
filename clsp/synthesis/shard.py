"""Stage generate-shard: candidates for a contiguous part of the anchors, streamed to disk."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.labels import generator_uses_labels
from clsp.config.schema import GENERATORS, BankSpec
from clsp.data.bank import identity
from clsp.data.prepared import open_prepared
from clsp.diffusion.pixels import to_signed
from clsp.models.denoiser import load_denoiser
from clsp.runtime.canonical import canonical_json, parse_json, sha256_json
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.progress import Progress
from clsp.runtime.registry import load
from clsp.runtime.stage import Input, Outcome, Output, Scratch
from clsp.synthesis.storage import reserve_images


def parse_shard(text: str) -> tuple[int, int]:
    """Split "I-of-N" into 1-based I and N.

    Raises:
        ConfigError: If it is not of that form, or I is not in 1..N.
    """
    match = re.fullmatch(r"(\d+)-of-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f'--shard: expected I-of-N with 1 <= I <= N, found "{text}"')
    return int(match[1]), int(match[2])


def anchors_of(shard: str, anchors: int) -> tuple[int, int]:
    """First anchor of a shard and the one after its last, when N shards split them evenly.

    Raises:
        ConfigError: If the shard's name is malformed, or there are more shards than anchors.
    """
    number, count = parse_shard(shard)
    if count > anchors:
        raise ConfigError(f"--shard {shard}: more shards than the {anchors} anchors")
    return anchors * (number - 1) // count, anchors * number // count


@dataclass(frozen=True)
class Stream:
    """The shard's array on disk and how far it is filled; both survive a kill.

    Attributes:
        images: uint8 (anchors * K, H, W, 3), a view of the mapped (anchors, K, H, W, 3) array.
    """

    folder: Path
    key: str
    images: np.memmap

    def advance(self, done: int) -> None:
        """Record that the first `done` images are on disk."""
        self.images.flush()
        write_atomic(self.folder / "done.json", canonical_json({"key": self.key, "done": done}))


def open_stream(folder: Path, key: str, shape: tuple[int, ...]) -> tuple[Stream, int]:
    """Continue the array that was begun for the same key, or begin one.

    Args:
        folder: Scratch folder.
        key: Digest of everything that decides the images.
        shape: (anchors, K, H, W, 3).

    Returns:
        The stream and the number of images that are already in it.

    Raises:
        DataError: If what is there was damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array, progress = folder / "images.npy", folder / "done.json"
    done, images = 0, None
    if array.is_file() and progress.is_file():
        try:
            state = parse_json(progress.read_text(encoding="utf-8"))
            if state["key"] == key:
                done, images = state["done"], np.load(array, mmap_mode="r+", allow_pickle=False)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}: damaged resume state ({error}); delete this folder to begin anew"
            ) from error
    if images is None:
        progress.unlink(missing_ok=True)  # before the array that it describes is replaced
        images = reserve_images(array, shape)
    return Stream(folder, key, images.reshape(-1, *shape[2:])), done


def generate_shard(
    spec: BankSpec, shard: str, denoiser: Input, dataset: Input, images: Output, scratch: Scratch
) -> Outcome:
    """Draw K candidates for each anchor of one shard; labels are never read.

    The shards of a bank split the training images contiguously. Batches run over (anchor,
    candidate) pairs and go straight to disk, so memory does not depend on the number of anchors.

    Raises:
        ConfigError: If the shard's name or the generator's settings are wrong.
        DataError: If the denoiser was trained on images of another size.
    """
    prepared = open_prepared(dataset)
    anchors = prepared.split("train").images
    device = resolve()
    network = load_denoiser(denoiser, device)
    if network.size != anchors.shape[1]:
        raise DataError(
            f"{denoiser.folder}: the denoiser makes {network.size}x{network.size} images, but "
            f"dataset {spec.dataset} has {anchors.shape[1]}x{anchors.shape[2]}"
        )
    start, stop = anchors_of(shard, len(anchors))
    belonging = identity(prepared)
    key = sha256_json([spec.canonical(), shard, network.sha256, belonging])
    shape = (stop - start, spec.candidates, *anchors.shape[1:])
    stream, done = open_stream(scratch, key, shape)
    generator, config = load(GENERATORS, spec.generator, "generator"), spec.settings()
    with Progress(f"generate shard {shard}", len(stream.images), "image", done) as progress:
        for low in range(done, len(stream.images), config.batch_size):
            high = min(low + config.batch_size, len(stream.images))
            pairs = np.arange(low, high)
            rows = start + pairs // spec.candidates
            drawn = generator.generate(
                network,
                to_signed(torch.from_numpy(anchors[rows]).to(device)),
                torch.from_numpy(rows).to(device),
                torch.from_numpy(pairs % spec.candidates).to(device),
                config,
                spec.seed,
            )
            stream.images[low:high] = drawn.cpu().numpy()
            stream.advance(high)
            progress.step(high - low)
    count = len(stream.images)
    del stream  # unmaps the array
    shutil.move(scratch / "images.npy", images)
    facts = _facts(spec, (start, stop), network.sha256, belonging, device)
    return Outcome({}, {"images": count}, facts)


def _facts(
    spec: BankSpec,
    anchors: tuple[int, int],
    denoiser: str,
    belonging: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    return {
        "anchors": list(anchors),  # first, and one after the last
        "candidates": spec.candidates,
        "denoiser": {"tensors_sha256": denoiser, "weights": "ema"},
        "dataset": belonging,
        "sampler": {"generator": spec.generator, **spec.options},
        "noise": "philox4x32-10; key (seed, purpose), counter (block, anchor, candidate, step)",
        "device": device.type,
        "label_conditioned": generator_uses_labels(spec.generator),
    }
