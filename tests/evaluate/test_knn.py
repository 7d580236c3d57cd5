"""Weighted kNN against naive Python and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from clsp.evaluate import knn
from clsp.evaluate.knn import votes
from clsp.models.nearest import neighbours

CPU = torch.device("cpu")


def draw(seed: int = 0, count: int = 60, tests: int = 25) -> tuple:
    rng = np.random.default_rng(seed)
    train = rng.normal(size=(count, 6)).astype(np.float32)
    test = rng.normal(size=(tests, 6)).astype(np.float32)
    return train, rng.integers(0, 4, count), test


def naive(train: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, t: float) -> list:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))

    near = sorted(((cosine(row, query), int(c)) for row, c in zip(train, labels, strict=True)))
    total = [0.0] * 4
    for similarity, label in near[-k:]:
        total[label] += math.exp(similarity / t)
    return total


@pytest.mark.parametrize("k", [1, 5, 20, 60])
def test_votes_equal_a_naive_rewrite_up_to_a_factor_per_image(k: int) -> None:
    train, labels, test = draw()
    cosines, rows = neighbours(train, test, 60, CPU)
    found = votes(cosines, labels[rows], 4, k, 0.07)
    for query, row in zip(test, found, strict=True):
        expected = np.array(naive(train, labels, query, k, 0.07))
        np.testing.assert_allclose(row / row.sum(), expected / expected.sum(), atol=1e-4)


def test_predictions_equal_scikit_learn() -> None:
    train, labels, test = draw(3, 200, 80)
    cosines, rows = neighbours(train, test, 15, CPU)
    found = votes(cosines, labels[rows], 4, 15, 0.1).argmax(1)
    reference = KNeighborsClassifier(
        15, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(train, labels)
    np.testing.assert_array_equal(found, reference.predict(test))


def test_votes_are_the_same_however_many_are_counted_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, labels, test = draw()
    cosines, rows = neighbours(train, test, 10, CPU)
    whole = votes(cosines, labels[rows], 4, 10, 0.07)
    monkeypatch.setattr(knn, "VOTES", 3 * 4)
    np.testing.assert_array_equal(votes(cosines, labels[rows], 4, 10, 0.07), whole)


def test_scale_of_features_does_not_matter() -> None:
    train, _, test = draw()
    np.testing.assert_array_equal(
        neighbours(train, test, 10, CPU)[1], neighbours(train * 50, test / 7, 10, CPU)[1]
    )


def test_nearest_come_first_and_one_neighbour_is_its_class() -> None:
    train, labels, _ = draw()
    cosines, rows = neighbours(train, train, 5, CPU)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(train)))
    assert (np.diff(cosines, axis=1) <= 0).all()
    np.testing.assert_array_equal(votes(cosines, labels[rows], 4, 1, 0.07).argmax(1), labels)


def test_a_low_temperature_neither_overflows_nor_vanishes() -> None:
    train, labels, test = draw()
    cosines, rows = neighbours(train, test, 20, CPU)
    cold = votes(cosines, labels[rows], 4, 20, 1e-4)
    assert np.isfinite(cold).all()
    np.testing.assert_array_equal(cold.argmax(1), labels[rows[:, 0]])


def test_weights_decide_against_the_majority() -> None:
    cosines = np.array([[0.9, 0.5, 0.5]], np.float32)
    voters = np.array([[2, 1, 1]])
    assert votes(cosines, voters, 3, 3, 0.07).argmax() == 2  # exp(0.4 / 0.07) = 303 > 2
    assert votes(cosines, voters, 3, 3, 10.0).argmax() == 1  # nearly one vote each
