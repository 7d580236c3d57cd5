"""What a dataset must be before anything is judged on it."""

from collections.abc import Callable

import numpy as np
import pytest

from clsp.data.prepared import open_prepared
from clsp.evaluate.labelled import open_task
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

Make = Callable[..., Artefact]


def test_a_task_knows_its_splits_and_rows(make_dataset: Make) -> None:
    splits = {"train": 30, "val": 12, "test": 9}
    task = open_task(make_dataset("pets-mini", splits=splits, metric="mean_per_class"))
    assert (task.name, task.classes, task.metric) == ("pets-mini", 3, "mean_per_class")
    assert [len(task.train), len(task.val), len(task.test)] == [30, 12, 9]
    np.testing.assert_array_equal(task.train.rows, np.arange(30))
    np.testing.assert_array_equal(task.val.rows, np.arange(30, 42))
    np.testing.assert_array_equal(task.rows(), np.arange(42, 51))
    assert not task.multilabel


def test_only_labelled_images_train(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[[3, 5]] = -1
    dataset = make_dataset(labels=labels)
    task = open_task(dataset)
    assert len(task.train) == len(task.train.images) == 46
    np.testing.assert_array_equal(task.train.rows, np.delete(np.arange(48), [3, 5]))
    np.testing.assert_array_equal(task.train.labels, labels[task.train.rows])
    images = open_prepared(dataset).images
    assert task.train.images.shape == (46, 8, 8, 3)
    np.testing.assert_array_equal(task.train.images[2:5], images[[2, 4, 6]])
    np.testing.assert_array_equal(task.train.images[np.array([45, 0])], images[[47, 0]])


def test_a_training_split_without_labels_is_refused(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[:48] = -1
    with pytest.raises(DataError, match=r"labels.npy: all 48 images of split train are unlabelled"):
        open_task(make_dataset(labels=labels))


@pytest.mark.parametrize(("row", "name", "count"), [(50, "val", 12), (60, "test", 12)])
def test_unlabelled_images_elsewhere_are_refused(
    make_dataset: Make, row: int, name: str, count: int
) -> None:
    labels = np.arange(72) % 3
    labels[row] = -1
    splits = {"train": 48, "val": 12, "test": 12}
    with pytest.raises(DataError, match=rf"npy: 1 of {count} images of split {name} are unlabel"):
        open_task(make_dataset(labels=labels, splits=splits))


def test_images_may_show_several_classes(make_dataset: Make) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    task = open_task(make_dataset("voc", labels=labels, metric="map11"))
    assert task.multilabel
    np.testing.assert_array_equal(task.train.labels, labels[:48])
    np.testing.assert_array_equal(task.test.labels, labels[48:])


def test_labels_of_several_classes_are_checked(make_dataset: Make) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    labels[50, 1] = 2
    with pytest.raises(DataError, match=r"split test has labels \(24, 3\) up to 2, expected 0 or"):
        open_task(make_dataset("a", labels=labels, metric="map11"))
    labels[48:] = 0
    with pytest.raises(DataError, match=r"no image of split test shows any class"):
        open_task(make_dataset("b", labels=labels, metric="map11"))


def test_a_metric_that_does_not_fit_the_labels_is_refused(make_dataset: Make) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    with pytest.raises(DataError, match=r'metric "top1" does not fit images that show several'):
        open_task(make_dataset("a", labels=labels))
    with pytest.raises(DataError, match=r'metric "map11" does not fit images that show one class'):
        open_task(make_dataset("b", metric="map11"))


def test_a_label_without_a_class_is_refused(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[-1] = 3
    with pytest.raises(DataError, match=r"label 3 in split test, but card.json names 3 classes"):
        open_task(make_dataset(labels=labels))


def test_labels_of_another_count_are_refused(make_dataset: Make) -> None:
    with pytest.raises(DataError, match=r"labels.npy: labels \(80,\) for 72 images"):
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
    with pytest.raises(DataError, match=r'unknown metric "top5"; known: top1, mean_per_class, map'):
        open_task(make_dataset("voc", metric="top5"))
    with pytest.raises(DataError, match=r"card.json: the key metric is missing"):
        open_task(make_dataset("none", metric=None))
