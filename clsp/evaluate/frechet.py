"""Frechet distance between two sets of features (FID, arXiv:1706.08500)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features.

    Attributes:
        mean: float64 (F,).
        covariance: With n - 1 in the denominator, float64 (F, F).
        count: Images behind them, at least 2.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @property
    def singular(self) -> bool:
        """Whether there are too few images for a covariance of full rank."""
        return self.count <= len(self.mean)


def _blocks(features: np.ndarray, size: int) -> Iterable[np.ndarray]:
    for start in range(0, len(features), size):
        yield np.asarray(features[start : start + size], np.float64)


def moments_of(features: np.ndarray, block: int) -> Moments:
    """Mean and covariance in two passes over blocks, in float64.

    `fid_features_to_statistics` of torch-fidelity gives the same to rounding, but takes a float64
    copy of all features.

    Args:
        features: float32 (N, F), may be mapped.
        block: Rows held at a time.

    Raises:
        ValueError: If there are fewer than two images.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs two images, found {len(features)}")
    total = np.zeros(features.shape[1])
    for part in _blocks(features, block):
        total += part.sum(axis=0)
    mean = total / len(features)
    squares = np.zeros((len(mean), len(mean)))
    for part in _blocks(features, block):
        part -= mean
        squares += part.T @ part
    return Moments(mean, squares / (len(features) - 1), len(features))


def frechet_distance(one: Moments, other: Moments) -> float:
    """Squared Frechet distance between two Gaussians: FID where features are Inception's."""
    both = [{"mu": m.mean, "sigma": m.covariance} for m in (one, other)]
    return float(fid_statistics_to_metric(*both, verbose=False)[KEY_METRIC_FID])
