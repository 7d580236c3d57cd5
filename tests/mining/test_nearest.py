"""Mutual nearest neighbours equal a naive search, whatever the block size; ties go to low numbers."""

import numpy as np
import pytest
import torch

from clsp.mining import nearest
from clsp.mining.nearest import highest, mutual, neighbours, unit


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
    monkeypatch.setattr(nearest, "BLOCK", rows * len(features))
    units = unit(torch.from_numpy(features))
    left, right, cosine = mutual(*neighbours(units, count))
    expected = naive(units, count)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == sorted(expected)
    np.testing.assert_allclose(cosine, [expected[pair] for pair in sorted(expected)], atol=1e-6)


def test_of_equal_values_the_lower_columns_win():
    values = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert highest(values, 3).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert highest(values, 4).tolist() == [[1, 2, 3, 4], [0, 1, 2, 3]]


def test_the_sum_of_all_blocks_is_reported():
    done = []
    neighbours(unit(torch.randn(10, 4)), 2, done.append)
    assert sum(done) == 10


def test_equal_features_are_equally_near_in_every_block(monkeypatch):
    features = torch.randn(300, 64).repeat(2, 1)
    monkeypatch.setattr(nearest, "BLOCK", 77 * 600)
    rows, cosines = neighbours(unit(features), 1)
    assert rows[:300, 0].tolist() == list(range(300, 600))
    assert rows[300:, 0].tolist() == list(range(300))
    assert torch.equal(cosines, torch.ones(600, 1))
