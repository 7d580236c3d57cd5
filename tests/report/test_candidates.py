"""The figure of candidates: which anchors it shows."""

import numpy as np

from clsp.report.figures.candidates import ANCHORS, chosen_rows


def test_the_first_anchor_of_each_class_and_no_unlabelled_one():
    assert chosen_rows(np.array([-1, 2, -1, 0, 2])) == [3, 1]
    assert chosen_rows(np.array([-1, -1])) == []
    assert len(chosen_rows(np.arange(50))) == ANCHORS
