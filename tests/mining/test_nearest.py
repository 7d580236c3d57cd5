"""Mutual nearest neighbours equal a naive search, whatever the block size; ties go to low numbers."""

import numpy as np
import pytest
import torch

from clsp.mining.nearest import mutual, neighbours
from clsp.models import nearest
from clsp.models.nearest import unit

CPU = torch.device("cpu")


def naive(units, count):
    """Pairs with their cosines, by sorting every row in Python."""
    cosines = (units @ units.T).numpy().astype(np.float32)
    total = len(units)
    near = [
        sorted(set(range(total)) - {i}, key=lambda j, i=i: (-cosines[i, j], j))[:count]
        for i in range(total)
    ]
    return {
        (i, j): cosines[i, j]
        for i in range(total)
        for j in range(i + 1, total)
        if j in near[i] and i in near[j]
    }


@pytest.mark.parametrize("count", [1, 4, 39])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_pairs_equal_a_naive_search(monkeypatch, count, rows):
    stream = np.random.default_rng(count)
    features = stream.normal(size=(40, 3)).astype(np.float16)
    features[[5, 9, 30]] = features[2]  # equal images tie
    features[11] = 0  # a dead feature is at right angles to everything
    monkeypatch.setattr(nearest, "NUMBERS", rows * 3)  # of the bank in a block
    left, right, cosine = mutual(*neighbours(features, count, CPU))
    expected = naive(unit(torch.from_numpy(features).double()), count)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == sorted(expected)
    np.testing.assert_allclose(cosine, [expected[pair] for pair in sorted(expected)], atol=1e-6)


def test_every_pass_over_all_images_is_reported(monkeypatch):
    monkeypatch.setattr(nearest, "NUMBERS", 4 * 6)
    done = []
    features = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float16)
    neighbours(features, 2, CPU, done.append)
    assert sum(done) == 2 * 10  # blocks of 6 and 4


def test_equal_features_are_equally_near_in_every_block(monkeypatch):
    features = np.tile(np.random.default_rng(0).normal(size=(300, 64)), (2, 1))
    monkeypatch.setattr(nearest, "NUMBERS", 77 * 64)
    rows, cosines = neighbours(features, 1, CPU)
    assert rows[:300, 0].tolist() == list(range(300, 600))
    assert rows[300:, 0].tolist() == list(range(300))
    np.testing.assert_array_equal(cosines, np.ones((600, 1)))
