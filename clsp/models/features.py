"""Features of a frozen encoder, extracted once and cached by whoever asked for them.

The encoder is in eval mode without gradients, so batch-norm statistics neither change nor depend
on the batch (methods.md, pitfall 5). Images enter as they are stored, at the dataset's `size`:
no augmentation, no crop, no resize. The resolution that CLSP used for transfer is not published,
and a stem made for 32 px is far out of its scale at 224 (methods.md section 4), so the size in
params.yaml is the choice and the record of it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clsp.config.recipe import Normalisation
from clsp.models.encoder import FILE, Encoder, load_encoder, normalise
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress

PIXELS = 1 << 19  # per batch: bounds the widest activation of ResNet-18 to 128 MiB
LARGEST_BATCH = 1024


@dataclass(frozen=True)
class FrozenEncoder:
    """The encoder of a finished run, with what its results have to say about it."""

    encoder: Encoder
    statistics: Normalisation
    device: torch.device
    path: Path
    run: str
    dataset: str  # what it was pretrained on
    epoch: int  # the last one of its pretraining, which is the one in the file


def open_frozen(artefact: Artefact, run: str, device: torch.device) -> FrozenEncoder:
    """Load the encoder of a run.

    Args:
        artefact: Made by the stage pretrain-encoder.
        run: The slug that the spec names; the artefact's folder has this name.
        device: Where features are computed.

    Raises:
        ConfigError: If the artefact is another run's, or no pretraining run at all.
        DataError: If its weights are corrupt.
    """
    if artefact.stage != "pretrain-encoder":
        raise ConfigError(
            f"--encoder {artefact.manifest}: expected a run of pretrain-encoder, "
            f"found one of {artefact.stage}"
        )
    if artefact.folder.name != run:
        raise ConfigError(
            f'--encoder {artefact.manifest}: holds run "{artefact.folder.name}", '
            f'but the spec judges "{run}"'
        )
    encoder, statistics = load_encoder(artefact, device)
    return FrozenEncoder(
        encoder,
        statistics,
        device,
        artefact.path(FILE),
        run,
        artefact.spec["dataset"],
        artefact.spec["recipe"]["epochs"],
    )


def batch_size_for(images: np.ndarray) -> int:
    """Images per forward pass, so that memory does not grow with resolution."""
    return max(1, min(LARGEST_BATCH, PIXELS // (images.shape[1] * images.shape[2])))


@torch.inference_mode()
def extract(
    frozen: FrozenEncoder,
    images: np.ndarray,
    batch_size: int,
    label: str,
    mirrored: bool = False,
) -> np.ndarray:
    """Backbone features after global average pooling, neither standardised nor normalised.

    Args:
        frozen: From `open_frozen`.
        images: uint8 (N, H, W, 3); may be memory-mapped, one batch is copied at a time.
        batch_size: Images per forward pass; changes features by rounding only.
        label: What the progress line says.
        mirrored: Flip every image left to right first.

    Returns:
        float32 (N, F), in the order of `images`.

    Raises:
        DataError: If a feature is not finite, which means that the pretraining diverged.
    """
    found = np.empty((len(images), frozen.encoder.features), np.float32)
    with Progress(label, len(images), "image") as progress:
        for start in range(0, len(images), batch_size):
            block = np.array(images[start : start + batch_size])  # (B, H, W, 3), off the map
            batch = torch.from_numpy(block).to(frozen.device)
            batch = batch.flip(2) if mirrored else batch
            features = frozen.encoder(normalise(batch, frozen.statistics))  # (B, F)
            found[start : start + len(block)] = features.float().cpu().numpy()
            progress.step(len(block))
    if not np.isfinite(found).all():
        raise DataError(f"{frozen.path}: gives features that are not finite; retrain this run")
    return found
