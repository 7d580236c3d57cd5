"""Accuracy from logits and the result record."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from clsp.audit.recompute import Predictions
from clsp.audit.recompute import score as recompute
from clsp.evaluate.metrics import (
    Judged,
    accuracy,
    average_precision,
    count_correct,
    make_result,
    score,
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
    with pytest.raises(ValueError, match="'top5' is no accuracy; known: top1, mean_per_class"):
        accuracy([[1, 1]], "top5")
    with pytest.raises(ValueError, match="do not fit"):
        count_correct(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(ValueError, match="NaN"):
        count_correct(np.array([[np.nan, 1.0]]), np.array([1]))


def test_the_score_of_one_class_per_image_is_its_accuracy() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    counts = count_correct(logits, labels)
    for metric in ("top1", "mean_per_class"):
        assert score(logits, labels, metric) == accuracy(counts, metric)


def naive_average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """The definition, word by word: every threshold, every recall."""
    points = []
    for threshold in set(scores.tolist()):
        retrieved = [bool(s) for score, s in zip(scores, shown, strict=True) if score >= threshold]
        recall = Fraction(sum(retrieved), int(shown.sum()))
        points.append((recall, Fraction(sum(retrieved), len(retrieved))))
    best = [max(p for r, p in points if r >= Fraction(k, 10)) for k in range(11)]
    return float(sum(best) / 11)


@pytest.mark.parametrize("levels", [2, 7, 1000])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.98])
def test_average_precision_is_its_definition(levels: int, share: float) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 10, 57):
        scores = rng.integers(0, levels, count).astype(np.float32)  # few levels: many equal scores
        shown = rng.uniform(size=count) < share
        shown[rng.integers(count)] = True
        expected = naive_average_precision(scores, shown)
        assert average_precision(scores, shown) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand() -> None:
    scores = np.array([5.0, 4, 3, 2, 1], np.float32)
    one = np.array([0, 0, 1, 0, 0], bool)
    assert average_precision(scores, one) == pytest.approx(1 / 3)
    # Recall 1/2 at precision 1, recall 1 at precision 2/4: six recalls up to 0.5, five beyond.
    two = np.array([1, 0, 0, 1, 0], bool)
    assert average_precision(scores, two) == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert average_precision(scores, np.array([1, 1, 0, 0, 0], bool)) == 1
    assert average_precision(np.zeros(5), two) == pytest.approx(0.4)  # nothing is told apart


def test_three_of_ten_reach_a_recall_of_three_tenths() -> None:
    shown = np.array([1, 1, 1, *[0] * 7, *[1] * 7], bool)
    value = average_precision(-np.arange(17.0), shown)
    assert value == pytest.approx((4 * 1 + 7 * 10 / 17) / 11)


def test_equal_scores_make_the_order_of_images_irrelevant() -> None:
    rng = np.random.default_rng(0)
    scores, shown = rng.integers(0, 4, 40).astype(float), rng.uniform(size=40) < 0.4
    order = rng.permutation(40)
    assert average_precision(scores, shown) == average_precision(scores[order], shown[order])


def test_the_mean_is_over_classes_that_an_image_shows() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(30, 4)), (rng.uniform(size=(30, 4)) < 0.3).astype(np.uint8)
    labels[:, 2] = 0
    points = [average_precision(logits[:, c], labels[:, c] == 1) for c in (0, 1, 3)]
    assert score(logits, labels, "map11") == pytest.approx(100 * np.mean(points))
    with pytest.raises(ValueError, match="map11 needs images that show classes"):
        score(logits, 0 * labels, "map11")
    with pytest.raises(ValueError, match="map11 needs images that show classes"):
        score(logits, labels[:, 0].astype(int), "map11")


def test_of_several_classes_those_above_zero_are_predicted() -> None:
    logits = np.array([[1.0, -1.0], [0.0, 2.0], [-3.0, 0.5]], np.float32)
    labels = np.array([[1, 1], [1, 1], [0, 0]], np.uint8)
    assert count_correct(logits, labels) == [[1, 2], [1, 2]]


def test_the_record_of_several_classes_agrees_with_the_audit() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(60, 5)) < 0.3).astype(np.uint8)
    logits = np.round(rng.normal(size=(60, 5)) + labels, 1).astype(np.float32)  # some are equal
    judged = Judged("voc", "map11", None, logits, labels, {"file": "p.npz"})
    result = make_result(judged, "transfer", "val", {})
    found = recompute(Predictions(labels, np.arange(60), logits), "map11")
    assert result["value"] == pytest.approx(found.value, abs=1e-9)
    counts = found.correct, found.total, found.per_class
    assert (result["correct"], result["total"], result["per_class"]) == counts


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
