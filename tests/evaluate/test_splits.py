"""Which images validate."""

from collections.abc import Callable

import numpy as np
import pytest

from clsp.config.evaluation import LogisticSpec
from clsp.evaluate.labelled import open_task
from clsp.evaluate.splits import ssl_transfer_draw, stratified_draw, validation_of
from clsp.runtime.canonical import sha256_array
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

Make = Callable[..., Artefact]
SPEC = LogisticSpec(
    low=-6,
    high=5,
    count=12,
    max_iterations=1000,
    tolerance=1e-6,
    validation="ssl_transfer",
    validation_fraction=0.2,
    seed=0,
)
STRATIFIED = SPEC.model_copy(update={"validation": "stratified"})
# Of the 10000 indices that the published code draws from 50000 training images with its seed 0.
CIFAR = "75e207cc673718c81a3de4d187347a6ecc83fb36ab2886d5d7f0ad35f3390d3d"


@pytest.mark.parametrize(("count", "seed"), [(50000, 0), (3060, 0), (7, 0), (5, 3)])
def test_ssl_transfer_draws_index_by_index_what_a_shuffled_list_begins_with(
    count: int, seed: int
) -> None:
    indices = list(range(count))
    np.random.RandomState(seed).shuffle(indices)
    drawn = ssl_transfer_draw(count, 0.2, seed)
    assert drawn.tolist() == indices[: int(np.floor(0.2 * count))]
    assert drawn.dtype == np.int64


def test_the_index_list_for_cifar_is_pinned() -> None:
    drawn = ssl_transfer_draw(50000, 0.2, 0)
    assert len(drawn) == 10000
    assert sha256_array(drawn) == CIFAR


def test_a_stratified_draw_is_even_by_class_keyed_and_leaves_something_to_train_on() -> None:
    labels = np.repeat([0, 1, 2, 3], [20, 10, 2, 1])
    chosen = stratified_draw(labels, 0.2, 0, "pets")
    assert np.bincount(labels[chosen], minlength=4).tolist() == [4, 2, 1, 0]
    np.testing.assert_array_equal(chosen, stratified_draw(labels, 0.2, 0, "pets"))
    assert not np.array_equal(chosen, stratified_draw(labels, 0.2, 1, "pets"))
    assert not np.array_equal(chosen, stratified_draw(labels, 0.2, 0, "cars"))


def test_an_official_split_is_used_whatever_the_rule(make_dataset: Make) -> None:
    task = open_task(make_dataset(splits={"train": 30, "val": 12, "test": 9}))
    for spec in (SPEC, STRATIFIED):
        validates, about = validation_of(task, spec)
        np.testing.assert_array_equal(np.flatnonzero(validates), np.arange(30, 42))
        digest = sha256_array(np.arange(30, 42))
        assert about == {"rule": "official", "count": 12, "rows_sha256": digest}


def test_a_carved_split_is_recorded_with_its_rule_and_rows(make_dataset: Make) -> None:
    task = open_task(make_dataset())
    for spec in (SPEC, STRATIFIED):
        validates, about = validation_of(task, spec)
        assert validates.shape == (48,)
        assert about == {
            "rule": spec.validation,
            "seed": 0,
            "fraction": 0.2,
            "count": 9,
            "rows_sha256": sha256_array(np.flatnonzero(validates)),
        }
    first, second = (np.flatnonzero(validation_of(task, s)[0]) for s in (SPEC, STRATIFIED))
    assert sorted(ssl_transfer_draw(48, 0.2, 0)) == first.tolist()
    assert np.bincount(task.train.labels[second]).tolist() == [3, 3, 3]
    assert not np.array_equal(first, second)


def test_rows_are_those_of_the_arrays_where_images_have_no_label(make_dataset: Make) -> None:
    labels = np.arange(72) % 3
    labels[:24] = -1
    task = open_task(make_dataset(labels=labels))
    validates, about = validation_of(task, SPEC)
    assert validates.shape == (24,)
    assert about["rows_sha256"] == sha256_array(24 + np.flatnonzero(validates))


def test_nothing_to_carve_is_refused(make_dataset: Make) -> None:
    splits = {"train": 3, "val": 0, "test": 3}
    task = open_task(make_dataset("pets", splits=splits))
    with pytest.raises(DataError, match=r'"pets": no validation split can be carved from 3 train'):
        validation_of(task, SPEC)
    with pytest.raises(DataError, match=r"a share of 0.2 \(stratified\) is no image"):
        validation_of(task, STRATIFIED)


def test_several_classes_per_image_cannot_be_stratified(make_dataset: Make) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (72, 3))
    task = open_task(make_dataset("voc", labels=labels, metric="map11"))
    assert validation_of(task, SPEC)[0].sum() == 9
    with pytest.raises(DataError, match=r'"voc": .*stratified .*; use validation: ssl_transfer'):
        validation_of(task, STRATIFIED)
