"""t-SNE of features: the same map on every call, whatever the threads."""

import numpy as np
from threadpoolctl import threadpool_limits

from clsp.report.figures.tsne import embed


def test_the_map_does_not_depend_on_the_number_of_threads() -> None:
    features = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    maps = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            maps.append(embed(features))
    np.testing.assert_array_equal(*maps)
    assert maps[0].shape == (200, 2)


def test_the_length_of_features_does_not_matter_and_few_are_enough() -> None:
    features = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    np.testing.assert_allclose(embed(features), embed(4 * features), rtol=1e-3, atol=1e-3)
