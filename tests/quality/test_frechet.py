"""The Frechet distance: known Gaussians, and torch-fidelity's own statistics."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics

from clsp.audit.quality import frechet
from clsp.evaluate.frechet import Moments, frechet_distance, moments_of


def test_known_gaussians() -> None:
    """Axis by axis it is the squared gap of the means plus that of the deviations."""
    mean, other = np.array([1.0, 2.0, -1.0]), np.array([0.0, 2.5, 1.0])
    spread, width = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 9.0])
    found = frechet_distance(Moments(mean, np.diag(spread), 9), Moments(other, np.diag(width), 9))
    expected = ((mean - other) ** 2).sum() + ((np.sqrt(spread) - np.sqrt(width)) ** 2).sum()
    assert found == pytest.approx(expected, rel=1e-12)
    assert frechet(mean, np.diag(spread), other, np.diag(width)) == pytest.approx(expected)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_moments_are_those_of_torch_fidelity(block: int) -> None:
    features = np.random.default_rng(0).normal(3, 2, (50, 6)).astype(np.float32)
    found, theirs = moments_of(features, block), fid_features_to_statistics(torch.tensor(features))
    np.testing.assert_allclose(found.mean, theirs["mu"], rtol=1e-6)
    np.testing.assert_allclose(found.covariance, theirs["sigma"], rtol=1e-6, atol=1e-6)
    assert (found.count, found.singular) == (50, False)


def test_a_singular_covariance_is_said_and_both_ways_agree() -> None:
    few = moments_of(np.random.default_rng(1).normal(size=(20, 40)).astype(np.float32), 8)
    many = moments_of(np.random.default_rng(2).normal(size=(200, 40)).astype(np.float32), 64)
    assert few.singular and not many.singular
    audited = frechet(few.mean, few.covariance, many.mean, many.covariance)
    assert frechet_distance(few, many) == pytest.approx(audited, rel=1e-6)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="needs two images, found 1"):
        moments_of(np.zeros((1, 4), np.float32), 8)
