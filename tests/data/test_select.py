"""Which images a limit keeps."""

import numpy as np
import pytest

from clsp.data.catalog import Item
from clsp.data.select import evenly, strata


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


def items_of(*labels):
    return [Item(lambda: None, label, str(row)) for row, label in enumerate(labels)]


def test_a_stratum_is_the_class_and_unlabelled_images_are_one_more():
    assert strata(items_of(2, 0, -1, 2)).tolist() == [2, 0, -1, 2]
    assert strata([]).tolist() == []


def test_of_several_classes_the_rarest_counts():
    labels = strata(items_of((0,), (0, 2), (0, 1), (0, 1), (1, 2)))
    assert labels.tolist() == [0, 2, 1, 1, 2]  # 4 images show 0, 3 show 1, 2 show 2
    assert set(labels[evenly(labels, 3)]) == {0, 1, 2}
