"""Offline linear probe on cached features (methods.md section 4, "Offline linear (CLSP)").

The authors recompute features in every epoch because each training image is flipped at random.
Without flips the features never change, so they are extracted once. With `flip`, both the
features of the image and of its mirror image are extracted once, and each epoch draws one of the
two per image: the authors' augmented probe, for two extractions instead of a hundred (D06).
SGD without momentum and the learning rate as given, not scaled by the batch size: the authors'
rates mean another effective step under momentum (methods.md, pitfalls 15 and 17).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clsp.config.evaluation import LinearSpec
from clsp.runtime.errors import ConfigError
from clsp.runtime.progress import Progress
from clsp.runtime.rng import key_of, numpy_stream, torch_stream, uniform


def initial_layer(features: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weight (classes, F) and bias (classes,), drawn as torch.nn.Linear draws them by default.

    That is U(-1/sqrt(F), 1/sqrt(F)) for both (kaiming_uniform_ with a = sqrt(5)), here from a
    stream of its own, so that the global generator has no say.
    """
    bound, stream = features**-0.5, torch_stream(seed, "linear-layer")
    weight = torch.empty(classes, features).uniform_(-bound, bound, generator=stream)
    return weight, torch.empty(classes).uniform_(-bound, bound, generator=stream)


def rate_of(spec: LinearSpec, epoch: int) -> float:
    """Learning rate of an epoch, counted from 0: decayed once for each milestone reached."""
    return spec.learning_rate * spec.decay ** sum(epoch >= m for m in spec.milestones)


def rows_of_epoch(spec: LinearSpec, count: int, seed: int, epoch: int) -> np.ndarray:
    """Rows of the stacked features [image 0..N-1, mirror image 0..N-1] in the epoch's order.

    Args:
        spec: Says whether mirror images are drawn at all.
        count: Number of images N.
        seed: Seed of the probe.
        epoch: From 0.

    Returns:
        int64 (N,): a permutation of the images, each replaced by its mirror image with
        probability 1/2 if `spec.flip`; that draw is keyed by (seed, image, epoch).
    """
    order = numpy_stream(seed, "linear-order", epoch).permutation(count)
    if not spec.flip:
        return order
    draws = uniform(key_of(seed, "linear-flip"), torch.arange(count), epoch, count=1)[:, 0]
    return order + count * (draws < 0.5).numpy()[order]


def train_linear(
    spec: LinearSpec,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    seed: int,
    device: torch.device,
    label: str,
) -> tuple[Tensor, Tensor]:
    """Train the probe; the last epoch counts.

    Args:
        spec: Optimisation; the last, smaller batch of an epoch is kept.
        features: Training features, float32 (N, F), or (2N, F) with the mirror images second.
        labels: int64 (N,).
        classes: Number of classes.
        seed: Decides first weights, order and flips.
        device: Where it runs.
        label: What the progress line says.

    Returns:
        Weight (classes, F) and bias (classes,) on `device`.

    Raises:
        ValueError: If features and labels do not fit each other.
        ConfigError: If the training diverges.
    """
    if len(features) != len(labels) * (2 if spec.flip else 1):
        raise ValueError(f"{len(features)} features, {len(labels)} labels, flip {spec.flip}")
    inputs = torch.from_numpy(features).to(device)
    targets = torch.from_numpy(labels).to(device)
    layer = [t.to(device).requires_grad_() for t in initial_layer(inputs.shape[1], classes, seed)]
    _descend(spec, layer, inputs, targets, seed, label)
    weight, bias = (tensor.detach() for tensor in layer)
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ConfigError(f"{label}: diverged at learning_rate {spec.learning_rate}; lower it")
    return weight, bias


def _descend(
    spec: LinearSpec, layer: list[Tensor], inputs: Tensor, targets: Tensor, seed: int, label: str
) -> None:
    # torch.optim.SGD written out: constructing one imports torch's compiler, which takes longer
    # than the whole probe of a small dataset.
    velocity = [torch.zeros_like(tensor) for tensor in layer]
    count = len(targets)
    with Progress(label, spec.epochs, "epoch") as progress:
        for epoch in range(spec.epochs):
            rate = rate_of(spec, epoch)
            rows = torch.from_numpy(rows_of_epoch(spec, count, seed, epoch)).to(inputs.device)
            for batch in rows.split(spec.batch_size):
                logits = functional.linear(inputs[batch], *layer)  # (B, classes)
                loss = functional.cross_entropy(logits, targets[batch % count])
                slopes = torch.autograd.grad(loss, layer)
                with torch.no_grad():
                    for tensor, step, slope in zip(layer, velocity, slopes, strict=True):
                        step.mul_(spec.momentum).add_(slope).add_(tensor, alpha=spec.weight_decay)
                        tensor.sub_(step, alpha=rate)
            progress.step()


def linear_logits(features: np.ndarray, weight: Tensor, bias: Tensor) -> np.ndarray:
    """Logits of the probe, float32 (M, classes), for features (M, F)."""
    inputs = torch.from_numpy(features).to(weight.device)
    return functional.linear(inputs, weight, bias).cpu().numpy()
