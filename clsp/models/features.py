"""Features of a frozen encoder, or of the floors that it has to beat.

The encoder is in eval mode without gradients, so batch-norm statistics neither change nor depend
on the batch (methods.md, pitfall 5). Images enter as they are stored, at the dataset's `size`:
no augmentation, no crop, no resize. The resolution that CLSP used for transfer is not published,
and a stem made for 32 px is far out of its scale at 224 (methods.md section 4), so the size in
params.yaml is the choice and the record of it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from clsp.config.recipe import Normalisation
from clsp.models.encoder import FILE, START, Encoder, load_encoder, normalise
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress

PIXELS = 1 << 19  # per batch: bounds the widest activation of ResNet-18 to 128 MiB
LARGEST_BATCH = 1024
SIDE = 32  # of the images whose pixels are features; larger ones are reduced to it


class Images(Protocol):
    """What features are extracted from: uint8 (N, H, W, 3), read in blocks."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any) -> Any: ...


class Source(Protocol):
    """What turns images into features.

    Attributes:
        path: What to blame for features that are not finite.
        epoch: Last epoch of the encoder's pretraining, or None where nothing was trained.
    """

    path: Path
    epoch: int | None

    def width(self, images: Images) -> int:
        """Features per image F."""

    def resolution(self, images: Images) -> int:
        """Side at which images enter, pixels."""

    def describe(self, block: np.ndarray) -> np.ndarray:
        """Features float32 (B, F) of uint8 (B, H, W, 3)."""


@dataclass(frozen=True)
class FrozenEncoder:
    """The encoder of a finished run, with what its results have to say about it."""

    encoder: Encoder
    statistics: Normalisation
    device: torch.device
    path: Path
    run: str
    epoch: int | None  # the last one of its pretraining, which is the one in the file

    def width(self, images: Images) -> int:
        """Features per image F."""
        return self.encoder.features

    def resolution(self, images: Images) -> int:
        """Side at which images enter, pixels."""
        return images.shape[1]

    @torch.inference_mode()
    def describe(self, block: np.ndarray) -> np.ndarray:
        """Backbone features after global average pooling, neither standardised nor normalised."""
        batch = torch.from_numpy(block).to(self.device)
        return self.encoder(normalise(batch, self.statistics)).float().cpu().numpy()


class PixelSource:
    """The pixels themselves, in [0, 1]; images above SIDE are reduced to SIDE x SIDE by averaging.

    That bounds the features: at 224 pixels an image would have 150528.
    """

    path, epoch = Path("pixels"), None

    def width(self, images: Images) -> int:
        """Features per image F."""
        return 3 * self.resolution(images) ** 2

    def resolution(self, images: Images) -> int:
        """Side at which images enter, pixels."""
        return min(images.shape[1], SIDE)

    def describe(self, block: np.ndarray) -> np.ndarray:
        """Pixels of every image in one row."""
        if block.shape[1] > SIDE:
            small = (
                Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX) for one in block
            )
            block = np.stack([np.asarray(one) for one in small])
        return block.reshape(len(block), -1).astype(np.float32) / 255


IMPORT = "import-encoder"


def _check_run(artefact: Artefact, imported: bool = False) -> None:
    if artefact.stage == "pretrain-encoder" or (imported and artefact.stage == IMPORT):
        return
    raise ConfigError(
        f"--encoder {artefact.manifest}: expected a run of pretrain-encoder"
        f"{', or an encoder of import-encoder' if imported else ''}, found one of {artefact.stage}"
    )


def open_frozen(artefact: Artefact, run: str, device: torch.device) -> FrozenEncoder:
    """Load the encoder of a run, or an imported one.

    Args:
        artefact: Made by the stage pretrain-encoder or import-encoder.
        run: The slug that the spec names; the artefact's folder has this name.
        device: Where features are computed.

    Raises:
        ConfigError: If the artefact is another run's, or holds no encoder at all.
        DataError: If its weights are corrupt.
    """
    _check_run(artefact, imported=True)
    if artefact.folder.name != run:
        raise ConfigError(
            f'--encoder {artefact.manifest}: holds run "{artefact.folder.name}", '
            f'but the spec judges "{run}"'
        )
    loaded = load_encoder(artefact, device)
    imported = artefact.stage == IMPORT
    epochs = artefact.spec.get("epochs") if imported else artefact.spec["recipe"]["epochs"]
    return FrozenEncoder(*loaded, device, artefact.path(FILE), run, epochs)


def open_untrained(artefact: Artefact, device: torch.device) -> FrozenEncoder:
    """Load the encoder of a run as it was before its first step; its normalisation is the run's.

    Args:
        artefact: Made by the stage pretrain-encoder.
        device: Where features are computed.

    Raises:
        ConfigError: If the artefact is no pretraining run.
        DataError: If its weights are corrupt.
    """
    _check_run(artefact)
    loaded = load_encoder(artefact, device, untrained=True)
    return FrozenEncoder(*loaded, device, artefact.path(START), artefact.folder.name, None)


def batch_size_for(images: Images) -> int:
    """Images per forward pass, so that memory does not grow with resolution."""
    return max(1, min(LARGEST_BATCH, PIXELS // (images.shape[1] * images.shape[2])))


def _blocks(images: Images, size: int, mirrored: bool) -> Iterator[np.ndarray]:
    """Images block by block; the next is read or decoded while the last one is worked on."""

    def read(start: int) -> np.ndarray:
        block = images[start : start + size]
        return np.array(block[:, :, ::-1] if mirrored else block, order="C")  # off the map

    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        starts = iter(range(0, len(images), size))
        coming = [reader.submit(read, start) for start in islice(starts, 1)]
        while coming:
            block = coming.pop().result()
            coming += [reader.submit(read, start) for start in islice(starts, 1)]
            yield block


def extract(
    source: Source,
    images: Images,
    batch_size: int,
    label: str,
    mirrored: bool = False,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Features of many images.

    Args:
        source: From `open_frozen`, for example.
        images: uint8 (N, H, W, 3); mapped or encoded, one batch is read at a time, and one ahead.
        batch_size: Images per forward pass; changes features by rounding only.
        label: What the progress line says.
        mirrored: Flip every image left to right first.
        into: Where features go, float32 (N, F); without it, a new array.

    Returns:
        float32 (N, F), in the order of `images`.

    Raises:
        DataError: If a feature is not finite, which means that the pretraining diverged.
    """
    if into is None:
        into = np.empty((len(images), source.width(images)), np.float32)
    done = 0
    with Progress(label, len(images), "image") as progress:
        for block in _blocks(images, batch_size, mirrored):
            found = source.describe(block)
            if not np.isfinite(found).all():
                raise DataError(
                    f"{source.path}: gives features that are not finite; retrain this run"
                )
            into[done : done + len(block)] = found
            done += len(block)
            progress.step(len(block))
    return into
