"""The independent path: hand-computed cases, ties, and arrays it refuses."""

import ast
from pathlib import Path

import numpy as np
import pytest

from clsp.audit import recompute
from clsp.audit.recompute import Predictions, load_predictions, mean_and_spread, score


def _predictions(logits: list[list[float]], labels: list[int]) -> Predictions:
    rows = np.arange(len(labels))
    return Predictions(np.array(logits, np.float32), np.array(labels), rows)


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


def test_arrays_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = {"logits": np.zeros((2, 3), np.float32), "labels": np.zeros(2, int)}
    np.savez(path, **good, rows=np.arange(3))
    with pytest.raises(ValueError, match=r"rows are int64 \(3,\)"):
        load_predictions(path, "logits", "labels", "rows")
    with pytest.raises(ValueError, match="no array wrong"):
        load_predictions(path, "wrong", "labels", "rows")
    np.savez(path, **{**good, "logits": np.full((2, 3), np.nan, np.float32)}, rows=np.arange(2))
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_predictions(path, "logits", "labels", "rows")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, logits=objects, labels=np.zeros(1, int), rows=np.zeros(1, int))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_predictions(path, "logits", "labels", "rows")


def test_statistics() -> None:
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([5.0]) == (5.0, None)


def test_it_imports_nothing_of_the_suite() -> None:
    tree = ast.parse(Path(recompute.__file__).read_text())
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert names == {"dataclasses", "pathlib", "numpy", "lzma", "struct", "zipfile", "zlib"}


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
            found = load_predictions(path, "logits", "labels", "rows")
        except (ValueError, OSError):
            told += 1
        else:
            assert np.array_equal(found.logits, logits)
    assert told > len(damaged) / 2
