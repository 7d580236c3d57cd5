"""Linear probe and kNN learnt again from stored features, by a second path: numpy only.

First weights, order of images and flips are drawn from the same keys as the suite's probe draws
them, by a generator of torch and a counter-based one that are written out here. So the same numbers
must come out, up to rounding.
"""

from dataclasses import dataclass

import numpy as np

from clsp.config.evaluation import KnnSpec, LinearSpec
from clsp.runtime.keys import key_of, numpy_stream

MASK = np.uint64(0xFFFFFFFF)
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
HALF = np.uint64(32)
BLOCK = 1 << 22  # cosines held at a time


@dataclass(frozen=True)
class Learnt:
    """What was learnt and scored again.

    Attributes:
        guess: Predicted classes of the test images, int64 (M,).
        correct: How many of them are right.
    """

    guess: np.ndarray
    correct: int


def keyed_uniform(key: int, images: np.ndarray, epoch: int) -> np.ndarray:
    """First number in [0, 1) of each image's stream: Philox4x32-10 (Salmon et al., SC'11).

    Args:
        key: Of the stream.
        images: Their numbers, int64 (N,).
        epoch: Second coordinate of the counter.

    Returns:
        float64 (N,), multiples of 2^-24.
    """
    words = [
        np.zeros(len(images), np.uint64),  # the first block of each stream
        images.astype(np.uint64) & MASK,
        np.full(len(images), epoch & 0xFFFFFFFF, np.uint64),
        np.zeros(len(images), np.uint64),
    ]
    keys = [key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF]
    for _ in range(ROUNDS):
        low, high = words[0] * MULTIPLIERS[0], words[2] * MULTIPLIERS[1]
        words = [
            (high >> HALF) ^ words[1] ^ np.uint64(keys[0]),
            high & MASK,
            (low >> HALF) ^ words[3] ^ np.uint64(keys[1]),
            low & MASK,
        ]
        keys = [(k + step) & 0xFFFFFFFF for k, step in zip(keys, WEYL, strict=True)]
    return (words[0] >> np.uint64(8)).astype(np.float64) * 2.0**-24


def torch_uniform(seed: int, bound: float, count: int) -> np.ndarray:
    """Numbers in [-bound, bound) as torch's CPU generator draws float32 ones: 24 bits a word.

    It is the Mersenne Twister seeded by the low 32 bits of the seed, like numpy's old generator.

    Returns:
        float32 (count,).
    """
    words = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 1 << 32, count, dtype=np.uint64)
    share = (words & np.uint64(0xFFFFFF)) * 2.0**-24
    low, high = np.float32(-bound), np.float32(bound)
    # Torch multiplies and adds with one rounding.
    return (share * float(high - low) + float(low)).astype(np.float32)


def _first_layer(features: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, F) and bias (C,), float32, drawn one after the other."""
    drawn = torch_uniform(
        key_of(seed, "linear-layer"), features**-0.5, classes * features + classes
    )
    split = classes * features
    return drawn[:split].reshape(classes, features).copy(), drawn[split:].copy()


def _rows(spec: LinearSpec, count: int, seed: int, epoch: int) -> np.ndarray:
    order = numpy_stream(seed, "linear-order", epoch).permutation(count)
    if not spec.flip:
        return order
    mirrored = keyed_uniform(key_of(seed, "linear-flip"), np.arange(count), epoch) < 0.5
    return order + count * mirrored[order]


def relearn_linear(
    spec: LinearSpec,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    *,
    classes: int,
    seed: int,
) -> tuple[Learnt, np.ndarray]:
    """Train the linear probe again and score it.

    Args:
        spec: Of the probe.
        train: Features, float32 (N, F), or (2N, F) with mirror images second.
        labels: int (N,).
        test: float32 (M, F).
        truth: int (M,).
        classes: How many.
        seed: Of the probe.

    Returns:
        What was learnt, and the test logits, float32 (M, C).
    """
    weight, bias = _first_layer(train.shape[1], classes, seed)
    layer, velocity = [weight, bias], [np.zeros_like(weight), np.zeros_like(bias)]
    for epoch in range(spec.epochs):
        rate = spec.learning_rate * spec.decay ** sum(epoch >= m for m in spec.milestones)
        rows = _rows(spec, len(labels), seed, epoch)
        for start in range(0, len(rows), spec.batch_size):
            chosen = rows[start : start + spec.batch_size]
            inputs, wanted = train[chosen], labels[chosen % len(labels)]
            scores = inputs @ layer[0].T + layer[1]
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            shares[np.arange(len(chosen)), wanted] -= 1
            shares /= len(chosen)
            slopes = (shares.T @ inputs, shares.sum(axis=0))
            for tensor, step, slope in zip(layer, velocity, slopes, strict=True):
                step *= np.float32(spec.momentum)
                step += slope + np.float32(spec.weight_decay) * tensor
                tensor -= np.float32(rate) * step
    logits = test @ layer[0].T + layer[1]
    guess = logits.argmax(axis=1)
    return Learnt(guess, int((guess == truth).sum())), logits


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.float32(1e-12))


def revote(
    spec: KnnSpec,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    classes: int,
) -> Learnt:
    """Let the k nearest training images vote again; arguments as of `relearn_linear`."""
    bank, step = _unit(train), max(1, BLOCK // len(train))
    guess = np.empty(len(test), np.int64)
    for start in range(0, len(test), step):
        cosines = _unit(test[start : start + step]) @ bank.T  # (B, N)
        near = np.argpartition(-cosines, spec.k - 1, axis=1)[:, : spec.k]
        found = np.take_along_axis(cosines, near, axis=1).astype(np.float64)
        weights = np.exp((found - found.max(axis=1, keepdims=True)) / spec.temperature)
        votes = np.zeros((len(found), classes))
        np.add.at(votes, (np.arange(len(found))[:, None], labels[near]), weights)
        guess[start : start + step] = votes.argmax(axis=1)
    return Learnt(guess, int((guess == truth).sum()))


@dataclass(frozen=True)
class Spread:
    """How much of their space features use.

    Attributes:
        finite: Whether all are.
        deviation: Standard deviation of unit features, mean over dimensions, times sqrt(F): 1 for
            isotropic ones, 0 for a constant encoder.
        rank: RankMe (Garrido et al., ICML 2023): exp of the entropy of the singular values.
        dead: Share of dimensions that never change.
    """

    finite: bool
    deviation: float
    rank: float
    dead: float


def spread_of(features: np.ndarray) -> Spread:
    """Measure features (N, F)."""
    if not np.isfinite(features).all():
        return Spread(False, 0.0, 0.0, 1.0)
    wide = features.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    deviation = float(unit.std(axis=0).mean() * np.sqrt(wide.shape[1]))
    small = wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(small), 0))
    shares = values / max(values.sum(), 1e-300)
    rank = float(np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum()))
    scale = max(float(np.abs(wide).max()), 1e-300)
    dead = float((wide.std(axis=0) <= 1e-9 * scale).mean())
    return Spread(True, deviation, rank, dead)
