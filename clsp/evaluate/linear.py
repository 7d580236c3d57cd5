"""Offline linear probe on cached features (methods.md section 4, "Offline linear (CLSP)").

The authors recompute features in every epoch because each training image is flipped at random.
Without flips the features never change, so they are extracted once. With `flip`, both the
features of the image and of its mirror image are extracted once, and each epoch draws one of the
two per image: the authors' augmented probe, for two extractions instead of a hundred (D06).
SGD without momentum and the learning rate as given, not scaled by the batch size: the authors'
rates mean another effective step under momentum (methods.md, pitfalls 15 and 17).

Several learning rates are trained at once, as one layer of (rates x classes) outputs: first
weights, order and flips are the same for all, no output sees another's weights, and so none is
harmed by one that diverges. Which rate to take is the business of clsp/evaluate/rates.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clsp.config.evaluation import LinearSpec
from clsp.evaluate.threads import few_threads
from clsp.runtime.errors import ConfigError
from clsp.runtime.progress import Progress
from clsp.runtime.rng import key_of, numpy_stream, torch_stream, uniform


@dataclass(frozen=True)
class Samples:
    """What probes learn from, on the device.

    Attributes:
        inputs: Features, float32 (N, F), or (2N, F) with the mirror images second.
        targets: Classes, int64 (N,).
        classes: How many there are.
    """

    inputs: Tensor
    targets: Tensor
    classes: int


def load_samples(
    parts: Sequence[np.ndarray], labels: np.ndarray, classes: int, device: torch.device
) -> Samples:
    """Put features on the device; mapped ones that are there already are not copied.

    Args:
        parts: Features of the images and, for `flip`, of their mirror images; float32 (N, F) each.
        labels: int64 (N,).
        classes: Number of classes.
        device: Where probes are trained.
    """
    if len(parts) == 1:
        inputs = torch.from_numpy(parts[0]).to(device)
    else:
        shape = sum(len(part) for part in parts), parts[0].shape[1]
        inputs = torch.empty(shape, dtype=torch.float32, device=device)
        for part, place in zip(parts, inputs.split([len(p) for p in parts]), strict=True):
            place.copy_(torch.from_numpy(part))
    return Samples(inputs, torch.from_numpy(labels).to(device), classes)


def initial_layer(features: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weight (classes, F) and bias (classes,), drawn as torch.nn.Linear draws them by default.

    That is U(-1/sqrt(F), 1/sqrt(F)) for both (kaiming_uniform_ with a = sqrt(5)), here from a
    stream of its own, so that the global generator has no say.
    """
    bound, stream = features**-0.5, torch_stream(seed, "linear-layer")
    weight = torch.empty(classes, features).uniform_(-bound, bound, generator=stream)
    return weight, torch.empty(classes).uniform_(-bound, bound, generator=stream)


def decay_of(spec: LinearSpec, epoch: int) -> float:
    """What rates are multiplied by in an epoch, from 0: `decay` for each milestone reached."""
    return spec.decay ** sum(epoch >= m for m in spec.milestones)


def rows_of_epoch(
    spec: LinearSpec, count: int, seed: int, epoch: int, images: np.ndarray | None = None
) -> np.ndarray:
    """Rows of the stacked features [image 0..N-1, mirror image 0..N-1] in the epoch's order.

    Args:
        spec: Says whether mirror images are drawn at all.
        count: Number of images N.
        seed: Seed of the probe.
        epoch: From 0.
        images: Those that are learnt from, int64 (n,); without them, all.

    Returns:
        int64 (n,): a permutation of the images, each replaced by its mirror image with
        probability 1/2 if `spec.flip`; that draw is keyed by (seed, image, epoch).
    """
    images = np.arange(count) if images is None else images
    order = images[numpy_stream(seed, "linear-order", epoch).permutation(len(images))]
    if not spec.flip:
        return order
    draws = uniform(key_of(seed, "linear-flip"), torch.arange(count), epoch, count=1)[:, 0]
    return order + count * (draws < 0.5).numpy()[order]


def slopes(
    inputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Gradient of the mean cross-entropy of G linear layers side by side.

    Written out, which takes two thirds of autograd's time at 512 features and 10 classes. The
    operations are those of its backward pass, so that for one layer the bits are the same too.

    Args:
        inputs: (B, F).
        targets: int64 (B,).
        weight: (G * classes, F), layer by layer.
        bias: (G * classes,).
        classes: Of each layer.

    Returns:
        Gradients of weight and bias; those of each layer follow from its own weights alone.
    """
    count = len(targets)
    scores = torch.addmm(bias, inputs, weight.T).view(count, -1, classes)  # (B, G, classes)
    logs = scores.log_softmax(2)
    true = targets[:, None, None].expand(-1, logs.shape[1], 1)
    back = torch.zeros_like(logs).scatter_(2, true, -1 / count)  # of the mean of -logs[true]
    back = torch._log_softmax_backward_data(back, logs, 2, logs.dtype).view(count, -1)
    return back.T @ inputs, back.sum(0)


def train_rates(
    spec: LinearSpec,
    samples: Samples,
    rates: Sequence[float],
    *,
    seed: int,
    label: str,
    images: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Train one probe per learning rate, all at once; the last epoch counts.

    Args:
        spec: Optimisation, but for its learning rate; the last, smaller batch is kept.
        samples: Features with their classes.
        rates: First learning rates, G of them.
        seed: Decides first weights, order and flips, the same for all.
        label: What the progress line says.
        images: Those that are learnt from, int64 (n,); without them, all.

    Returns:
        Weight (G, classes, F) and bias (G, classes); not finite for rates that diverged.

    Raises:
        ValueError: If features and classes do not fit each other.
    """
    inputs, count = samples.inputs, len(samples.targets)
    if len(inputs) != count * (2 if spec.flip else 1):
        raise ValueError(f"{len(inputs)} features, {count} labels, flip {spec.flip}")
    first = initial_layer(inputs.shape[1], samples.classes, seed)
    layer = [torch.cat([tensor] * len(rates)).to(inputs.device) for tensor in first]
    with (
        few_threads(spec.batch_size * layer[0].numel()),
        Progress(label, spec.epochs, "epoch") as p,
    ):
        velocity = [torch.zeros_like(tensor) for tensor in layer]
        for epoch in range(spec.epochs):
            now = [rate * decay_of(spec, epoch) for rate in rates]
            rows = rows_of_epoch(spec, count, seed, epoch, images)
            _pass(spec, samples, torch.from_numpy(rows).to(inputs.device), layer, velocity, now)
            p.step()
    weight, bias = layer
    return weight.view(len(rates), samples.classes, -1), bias.view(len(rates), -1)


@torch.no_grad()
def _pass(
    spec: LinearSpec,
    samples: Samples,
    rows: Tensor,
    layer: list[Tensor],
    velocity: list[Tensor],
    rates: list[float],
) -> None:
    """One epoch: torch.optim.SGD written out, because G layers have G rates."""
    count, lively = len(samples.targets), spec.momentum != 0 or spec.weight_decay != 0
    column = torch.tensor(rates, device=rows.device)[:, None]  # (G, 1)
    for batch in rows.split(spec.batch_size):
        chosen = samples.inputs.index_select(0, batch)  # (B, F)
        found = slopes(chosen, samples.targets[batch % count], *layer, samples.classes)
        for tensor, step, slope in zip(layer, velocity, found, strict=True):
            if lively:
                step.mul_(spec.momentum).add_(slope).add_(tensor, alpha=spec.weight_decay)
                slope = step
            if len(rates) == 1:
                tensor.sub_(slope, alpha=rates[0])
            else:
                of_rate = slope.view(len(rates), -1)
                tensor.view(len(rates), -1).addcmul_(of_rate, column, value=-1)


def is_finite(weight: Tensor, bias: Tensor) -> bool:
    """Whether a layer has not diverged."""
    return bool(weight.isfinite().all() and bias.isfinite().all())


def train_linear(
    spec: LinearSpec, samples: Samples, *, seed: int, label: str
) -> tuple[Tensor, Tensor]:
    """Train the probe at its own learning rate.

    Args:
        spec: Optimisation.
        samples: Features with their classes.
        seed: Decides first weights, order and flips.
        label: What the progress line says.

    Returns:
        Weight (classes, F) and bias (classes,) on the device of the samples.

    Raises:
        ValueError: If features and classes do not fit each other.
        ConfigError: If the training diverges.
    """
    layers = train_rates(spec, samples, [spec.learning_rate], seed=seed, label=label)
    weight, bias = (tensor[0] for tensor in layers)
    if not is_finite(weight, bias):
        raise ConfigError(f"{label}: diverged at learning_rate {spec.learning_rate}; lower it")
    return weight, bias


def linear_logits(features: np.ndarray, weight: Tensor, bias: Tensor) -> np.ndarray:
    """Logits of the probe, float32 (M, classes), for features (M, F)."""
    inputs = torch.from_numpy(features).to(weight.device)
    return functional.linear(inputs, weight, bias).cpu().numpy()
