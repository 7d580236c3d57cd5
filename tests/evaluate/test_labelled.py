"""What a dataset must be before anything is judged on it."""

from collections.abc import Callable

import numpy as np
import pytest

from clsp.evaluate.labelled import open_task
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

Make = Callable[..., Artefact]


def test_a_task_knows_its_splits_and_rows(make_dataset: Make) -> None:
    splits = {"train": 30, "val": 12, "test": 9}
    task = open_task(make_dataset("pets-mini", splits=splits, metric="mean_per_class"))
    assert (task.name, task.classes, task.metric) == ("pets-mini", 3, "mean_per_class")
    assert [len(task.train), len(task.val), len(task.test)] == [30, 12, 9]
    np.testing.assert_array_equal(task.rows(), np.arange(42, 51))


def test_unlabelled_images_are_refused(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[[3, 5]] = -1
    with pytest.raises(DataError, match=r"labels.npy: 2 of 48 images of split train are unlabel"):
        open_task(make_dataset(labels=labels))


def test_a_label_without_a_class_is_refused(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[-1] = 3
    with pytest.raises(DataError, match=r"label 3 in split test, but card.json names 3 classes"):
        open_task(make_dataset(labels=labels))


def test_labels_of_another_count_are_refused(make_dataset: Make) -> None:
    with pytest.raises(DataError, match=r"labels.npy: 80 labels for 72 images"):
        open_task(make_dataset(labels=np.arange(80) % 3))


def test_a_split_beyond_the_arrays_is_refused(make_dataset: Make) -> None:
    artefact = make_dataset()
    card = artefact.path("card.json")
    card.write_text(card.read_text().replace('"test":[48,72]', '"test":[48,90]'))
    with pytest.raises(DataError, match=r"split test is rows 48 to 90, but the dataset has 72"):
        open_task(artefact)


@pytest.mark.parametrize("name", ["train", "test"])
def test_an_empty_split_is_refused(make_dataset: Make, name: str) -> None:
    splits = {"train": 6, "val": 0, "test": 6, name: 0}
    with pytest.raises(DataError, match=rf"card.json: split {name} is empty"):
        open_task(make_dataset(splits=splits))


def test_an_unknown_metric_and_a_missing_key_are_refused(make_dataset: Make) -> None:
    with pytest.raises(DataError, match=r'unknown metric "map11"; known: top1, mean_per_class'):
        open_task(make_dataset("voc", metric="map11"))
    with pytest.raises(DataError, match=r"card.json: the key metric is missing"):
        open_task(make_dataset("none", metric=None))
