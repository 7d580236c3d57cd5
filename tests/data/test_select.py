"""Which images a limit keeps."""

import numpy as np
import pytest

from clsp.data.select import evenly


def test_no_limit_keeps_all():
    labels = np.array([0, 1, 1])
    assert evenly(labels, None).tolist() == [0, 1, 2]
    assert evenly(labels, 3).tolist() == [0, 1, 2]
    assert evenly(np.array([], dtype=int), 5).tolist() == []


@pytest.mark.parametrize("limit", [3, 4, 10, 29, 30, 31, 59])
def test_classes_share_evenly_and_the_limit_is_met(limit):
    labels = np.repeat([0, 1, 2], [20, 20, 20])
    rows = evenly(labels, limit)
    counts = np.bincount(labels[rows], minlength=3)
    assert len(rows) == len(set(rows.tolist())) == limit
    assert counts.max() - counts.min() <= 1
    assert (np.diff(rows) > 0).all()


def test_a_small_class_gives_all_and_the_others_fill_up():
    labels = np.repeat([0, 1, 2], [2, 50, 50])
    assert np.bincount(labels[evenly(labels, 30)]).tolist() == [2, 14, 14]


def test_rows_are_spaced_over_the_class():
    assert evenly(np.zeros(100, dtype=int), 4).tolist() == [0, 25, 50, 75]


def test_the_order_of_classes_does_not_matter():
    labels = np.tile([0, 1], 10)
    rows = evenly(labels, 6)
    assert np.bincount(labels[rows]).tolist() == [3, 3]
