"""One fine-tuning: an encoder and a new linear layer, all of whose weights are trained.

SGD with Nesterov momentum, a cosine schedule over steps, random resized crops and flips. Batch
norm is in training mode, so that its statistics become those of the new images. Order and crops
are keyed by dataset, epoch and image, so that every pair of a grid sees the same ones.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clsp.config.evaluation import FineTuneSpec
from clsp.config.recipe import JitterSpec, Normalisation, ViewSpec
from clsp.data.prepared import Images
from clsp.data.stores import Request, Store
from clsp.data.views import draw
from clsp.evaluate.linear import initial_layer
from clsp.models.encoder import Encoder, normalise
from clsp.models.features import batch_size_for
from clsp.runtime.progress import Progress
from clsp.runtime.rng import key_of, numpy_stream

RATIO = (3 / 4, 4 / 3)  # of random crops: torchvision's


@dataclass(frozen=True)
class Pair:
    """One point of the grid."""

    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Material:
    """What an encoder is tuned on, and how its input is made.

    Attributes:
        name: Of the dataset; with image and epoch, the key of all draws.
        store: Gives crops of them.
        places: Number of each image in the store, int64 (N,), on `device`.
        labels: int64 (N,), or float32 (N, classes) where images show several classes; on `device`.
        classes: Number of classes.
        statistics: The encoder's, of its input.
        device: Where it is trained.
    """

    name: str
    store: Store
    places: Tensor
    labels: Tensor
    classes: int
    statistics: Normalisation
    device: torch.device


class Network(nn.Module):
    """A trainable copy of an encoder, and a linear layer drawn from the seed."""

    def __init__(self, encoder: Encoder, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        weight, bias = initial_layer(encoder.features, classes, seed)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W)."""
        return functional.linear(self.encoder(images), self.weight, self.bias)


def crops_of(spec: FineTuneSpec) -> ViewSpec:
    """The views of fine-tuning: a crop and a flip."""
    return ViewSpec(
        crop_scale=(spec.crop_scale, 1.0),
        crop_ratio=RATIO,
        interpolation="bilinear",
        flip=spec.flip,
        jitter=JitterSpec(probability=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
        grayscale=0.0,
        solarize=0.0,
    )


def rate_of(peak: float, step: int, steps: int) -> float:
    """Half a cosine from `peak` in the first step towards 0 after the last."""
    return peak * (1 + math.cos(math.pi * step / steps)) / 2


def _order(spec: FineTuneSpec, name: str, rows: np.ndarray, epoch: int) -> list[np.ndarray]:
    """Batches of an epoch; a last incomplete one is dropped, unless there is no other."""
    size = min(spec.batch_size, len(rows))
    stream = numpy_stream(spec.seed, "fine-tune-order", name, epoch)
    order = rows[stream.permutation(len(rows))]
    return [order[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _batches(
    spec: FineTuneSpec, material: Material, rows: np.ndarray, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised crops (B, 3, size, size) and labels; the next crops are begun one batch early."""
    key, views = key_of(spec.seed, "fine-tune-view", material.name), crops_of(spec)
    begun = None
    for batch in [*_order(spec, material.name, rows, epoch), None]:
        coming = None
        if batch is not None:
            index = torch.from_numpy(batch).to(material.device)
            u = draw(index, epoch, 0, key)
            request = Request(material.places[index], None, u, views)
            coming = index, material.store.begin([request])
        if begun is not None:
            index, crops = begun
            yield normalise(crops()[0], material.statistics), material.labels[index]
        begun = coming


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, or the mean of binary ones where images show several classes."""
    if labels.ndim == 2:
        return functional.binary_cross_entropy_with_logits(logits, labels)
    return functional.cross_entropy(logits, labels)


def _is_finite(network: Network, loss: Tensor) -> bool:
    tensors = [*network.state_dict().values(), loss]
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def tune(
    spec: FineTuneSpec,
    encoder: Encoder,
    material: Material,
    rows: np.ndarray,
    pair: Pair,
    progress: Progress,
) -> Network | None:
    """Tune a copy of an encoder.

    Args:
        spec: Everything but the pair.
        encoder: Where it starts; stays as it is.
        material: Images and labels.
        rows: Images to train on, numbers into `material.labels`, int64 (n,), at least two.
        pair: Learning rate and weight decay.
        progress: Told of every epoch, also of those that divergence spares.

    Returns:
        The network in eval mode, or None if loss, weights or batch-norm statistics are no longer
        finite after an epoch: it diverged.
    """
    network = Network(encoder, material.classes, spec.seed)
    network = network.to(material.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=pair.learning_rate,
        momentum=spec.momentum,
        weight_decay=pair.weight_decay,
        nesterov=spec.momentum > 0,
    )
    per_epoch = len(rows) // min(spec.batch_size, len(rows))
    for epoch in range(spec.epochs):
        total = torch.zeros((), device=material.device)
        for number, (images, labels) in enumerate(_batches(spec, material, rows, epoch)):
            place = epoch * per_epoch + number
            for group in optimizer.param_groups:
                group["lr"] = rate_of(pair.learning_rate, place, spec.epochs * per_epoch)
            loss = _loss(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if not _is_finite(network, total):
            progress.step(spec.epochs - epoch)
            return None
        progress.step()
    return network.eval()


@torch.inference_mode()
def predict(network: Network, images: Images, rows: np.ndarray, material: Material) -> np.ndarray:
    """Logits float32 (m, classes) of the given rows of images, whole and not augmented."""
    size = batch_size_for(images)
    found = np.empty((len(rows), material.classes), np.float32)
    for start in range(0, len(rows), size):
        block = torch.from_numpy(np.array(images[rows[start : start + size]]))  # off the map
        logits = network(normalise(block.to(material.device), material.statistics))
        found[start : start + len(block)] = logits.float().cpu().numpy()
    return found
