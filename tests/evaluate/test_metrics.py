"""Accuracy from logits and the result record."""

import json
from pathlib import Path

import numpy as np
import pytest

from clsp.evaluate.metrics import (
    Judged,
    accuracy,
    count_correct,
    make_result,
    write_arrays,
    write_results,
)


def test_ties_go_to_the_lowest_index() -> None:
    logits = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]], np.float32)
    assert count_correct(logits, np.array([0, 1, 0])) == [[2, 2], [1, 1], [0, 0]]
    assert count_correct(logits, np.array([1, 2, 2])) == [[0, 0], [0, 1], [0, 2]]


def test_counts_agree_with_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 7)).astype(np.float32), rng.integers(0, 7, 200)
    naive = [[0, 0] for _ in range(7)]
    for row, label in zip(logits, labels, strict=True):
        naive[label][1] += 1
        naive[label][0] += int(max(range(7), key=lambda c, row=row: row[c]) == label)
    assert count_correct(logits, labels) == naive


def test_mean_per_class_ignores_classes_without_a_test_image() -> None:
    per_class = [[9, 10], [0, 0], [1, 2]]
    assert accuracy(per_class, "mean_per_class") == pytest.approx((90 + 50) / 2)
    assert accuracy(per_class, "top1") == pytest.approx(100 * 10 / 12)


def test_an_unknown_metric_and_bad_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric 'top5'"):
        accuracy([[1, 1]], "top5")
    with pytest.raises(ValueError, match="do not fit"):
        count_correct(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(ValueError, match="NaN"):
        count_correct(np.array([[np.nan, 1.0]]), np.array([1]))


def test_the_record_has_exactly_the_agreed_keys_and_plain_types(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, 1])
    logits = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    stored = {"file": "knn.npz", "logits": "logits", "labels": "labels", "rows": "rows"}
    judged = Judged("digits", "top1", 20, logits, labels, stored)
    result = make_result(judged, "knn", "test", {"k": 5}, variant="best_of_k")
    write_results(tmp_path / "knn.json", "slug", [result])
    assert json.loads((tmp_path / "knn.json").read_text()) == {
        "schema_version": 1,
        "run": "slug",
        "results": [
            {
                "task": "digits",
                "protocol": "knn",
                "variant": "best_of_k",
                "metric": "top1",
                "value": 75.0,
                "correct": 3,
                "total": 4,
                "per_class": [[1, 1], [2, 3]],
                "split": "test",
                "selected_on": "test",
                "epoch": 20,
                "selection": {"k": 5},
                "predictions": stored,
            }
        ],
    }


def test_arrays_keep_the_file_name_and_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"cifar10-mini.logits": np.ones((2, 3), np.float32), "rows": np.arange(2)}
    for name in ("a.partial", "b.partial"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "a.partial").read_bytes() == (tmp_path / "b.partial").read_bytes()
    with np.load(tmp_path / "a.partial", allow_pickle=False) as stored:
        assert set(stored.files) == set(arrays)
        np.testing.assert_array_equal(stored["cifar10-mini.logits"], arrays["cifar10-mini.logits"])
