"""The independent path: hand-computed cases, ties, and arrays it refuses."""

import ast
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clsp.audit import arrays, recompute
from clsp.audit.recompute import (
    Predictions,
    eleven_points,
    load_predictions,
    mean_and_spread,
    score,
)
from clsp.evaluate.metrics import average_precision

NAMES = {"logits": "logits", "labels": "labels", "rows": "rows"}


def _predictions(logits: list[list[float]], labels: list[int]) -> Predictions:
    rows = np.arange(len(labels))
    return Predictions(np.array(labels), rows, np.array(logits, np.float32))


def _drawn(predicted: list[list[int]], labels: list[int]) -> Predictions:
    rows = np.arange(len(labels))
    return Predictions(np.array(labels), rows, predicted=np.array(predicted))


def test_top1_by_hand() -> None:
    found = score(_predictions([[1, 0], [0, 1], [1, 0], [3, 2]], [0, 1, 1, 0]), "top1")
    assert (found.value, found.correct, found.total) == (75.0, 3, 4)
    assert found.per_class == [[2, 2], [1, 2]]


def test_mean_per_class_ignores_classes_without_images() -> None:
    logits = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    found = score(_predictions(logits, [0, 0, 1, 1]), "mean_per_class")
    assert found.value == pytest.approx((100 + 50) / 2)
    assert found.per_class[2] == [0, 0]


def test_ties_go_to_the_lowest_class() -> None:
    assert score(_predictions([[1, 1], [1, 1]], [0, 1]), "top1").correct == 1


@pytest.mark.parametrize(
    ("logits", "labels", "metric", "message"),
    [
        ([[1.0, 0.0]], [2], "top1", "labels from 2 to 2 for 2 classes"),
        ([[1.0, 0.0]], [0], "top5", "unknown metric"),
    ],
)
def test_nonsense_is_refused(logits: list, labels: list, metric: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(_predictions(logits, labels), metric)


def test_draws_are_pooled() -> None:
    found = score(_drawn([[0, 1, 1], [0, 0, 0]], [0, 1, 0]), "top1", 3)
    assert (found.correct, found.total) == (4, 6)
    assert found.per_class == [[3, 4], [1, 2], [0, 0]]
    assert found.value == pytest.approx(100 * 4 / 6)
    by_class = score(_drawn([[0, 1, 1], [0, 0, 0]], [0, 1, 0]), "mean_per_class", 3)
    assert by_class.value == pytest.approx((75 + 50) / 2)


@pytest.mark.parametrize(
    ("predicted", "metric", "classes", "message"),
    [
        ([[0, 3]], "top1", 3, "predicted classes from 0 to 3 for 3 classes"),
        ([[0, -1]], "top1", 3, "predicted classes from -1 to 0 for 3 classes"),
        ([[0, 1]], "top1", None, "number of classes is not known"),
        ([[0, 1]], "map11", 3, r"metric 'map11' does not fit labels \(2,\)"),
    ],
)
def test_nonsense_in_draws_is_refused(
    predicted: list, metric: str, classes: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(_drawn(predicted, [0, 1]), metric, classes)


@pytest.mark.parametrize(
    ("scores", "positive", "value"),
    [
        ([3, 2, 1], [1, 0, 0], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([3, 2, 1], [1, 0, 1], (6 * 1 + 5 * 2 / 3) / 11),  # recall 0.5 reaches 0, 0.1, ..., 0.5
        ([1, 1, 1], [1, 0, 0], 1 / 3),  # equal scores are retrieved together
        ([2, 2, 1], [0, 1, 1], 2 / 3),  # precision rises to 2/3 at full recall
    ],
)
def test_average_precision_by_hand(scores: list, positive: list, value: float) -> None:
    found = eleven_points(np.array(scores, np.float32), np.array(positive, bool))
    assert found == pytest.approx(value, abs=1e-12)


def test_both_paths_agree_on_average_precision() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 2, 7, 60):
        for levels in (2, 5, 1000):  # few levels: many equal scores
            scores = draw.integers(0, levels, size).astype(np.float32)
            positive = draw.random(size) < 0.4
            positive[0] = True
            mine = eleven_points(scores, positive)
            assert mine == pytest.approx(average_precision(scores, positive), abs=1e-12)


def test_classes_of_images_that_show_several_are_ranked() -> None:
    logits = [[2.0, -1.0, 0.5], [1.0, 3.0, -2.0], [-1.0, 2.0, 1.0]]
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.uint8)
    found = score(Predictions(labels, np.arange(3), np.array(logits, np.float32)), "map11")
    assert found.value == pytest.approx(100 * ((6 * 1 + 5 * 2 / 3) / 11 + 1) / 2)
    assert found.per_class == [[1, 2], [2, 2], [0, 0]]  # above 0; nothing shows the last class
    assert (found.correct, found.total) == (3, 4)


def test_recall_is_compared_exactly() -> None:
    """3 of 10 found is a recall of 0.3, though 0.1 + 0.1 + 0.1 exceeds 0.3 in floating point."""
    positive = np.array([1] * 3 + [0] * 10 + [1] * 7, bool)
    found = eleven_points(np.arange(20, 0, -1).astype(np.float32), positive)
    assert found == pytest.approx((4 * 1 + 7 * 10 / 20) / 11, abs=1e-12)


def test_shape_of_draws_is_checked(tmp_path: Path) -> None:
    path, names = tmp_path / "a.npz", {"predicted": "guess", "labels": "labels", "rows": "rows"}
    good = {"labels": np.zeros(2, int), "rows": np.arange(2)}
    for guess, message in (
        (np.zeros((3, 1), int), r"labels are int64 \(2,\) for classes \(3, 1\)"),
        (np.zeros(2, int), r"predicted classes are int64 \(2,\)"),
        (np.zeros((3, 2)), r"predicted classes are float64"),
        (np.zeros((0, 2), int), r"predicted classes are int64 \(0, 2\)"),
    ):
        np.savez(path, guess=guess, **good)
        with pytest.raises(ValueError, match=message):
            load_predictions(path, names)
    with pytest.raises(ValueError, match="neither logits nor predicted classes, or both"):
        load_predictions(path, {**names, "logits": "guess"})


def test_arrays_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = {"logits": np.zeros((2, 3), np.float32), "labels": np.zeros(2, int)}
    np.savez(path, **good, rows=np.arange(3))
    with pytest.raises(ValueError, match=r"rows are int64 \(3,\)"):
        load_predictions(path, NAMES)
    with pytest.raises(ValueError, match="no array wrong"):
        load_predictions(path, {**NAMES, "logits": "wrong"})
    np.savez(path, **{**good, "logits": np.full((2, 3), np.nan, np.float32)}, rows=np.arange(2))
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_predictions(path, NAMES)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, logits=objects, labels=np.zeros(1, int), rows=np.zeros(1, int))
    with pytest.raises(ValueError, match="Python objects"):
        load_predictions(path, NAMES)


def test_statistics() -> None:
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([5.0]) == (5.0, None)


def test_it_imports_nothing_of_the_suite() -> None:
    """But for what looks at an archive before it is read, which imports nothing of it either."""

    def imported(module: ModuleType) -> set[str | None]:
        tree = ast.parse(Path(str(module.__file__)).read_text())
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        return names | {
            a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
        }

    known = {"dataclasses", "pathlib", "numpy", "lzma", "struct", "zipfile", "zlib"}
    assert imported(recompute) == known | {arrays.__name__}
    assert imported(arrays) == {"math", "zipfile", "pathlib", "typing", "numpy"}


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    """Every bit flipped and every length cut: told as ValueError or OSError, or harmless."""
    path = tmp_path / "a.npz"
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(path, logits=logits, labels=np.zeros(2, int), rows=np.arange(2))
    whole, told = path.read_bytes(), 0
    flips = [(place, bit) for place in range(len(whole)) for bit in (0, 3, 6)]
    damaged = [whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
               for place, bit in flips]  # fmt: skip
    damaged += [whole[:length] for length in range(0, len(whole), 3)]
    for content in damaged:
        path.write_bytes(content)
        try:
            found = load_predictions(path, NAMES)
        except (ValueError, OSError):
            told += 1
        else:
            assert np.array_equal(found.logits, logits)
    assert told > len(damaged) / 2
