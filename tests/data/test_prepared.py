"""Opening a prepared dataset: both storages alike, and files that do not fit each other."""

import json

import numpy as np
import pytest
from pretraining import write_dataset, write_encoded

from clsp.data import prepared as module
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import all_pixels, open_prepared, window
from clsp.runtime.errors import ConfigError, DataError

both = pytest.mark.parametrize("make", [write_dataset, write_encoded])


def change(artefact, **fields):
    path = artefact.path("card.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@both
def test_splits_are_windows_onto_the_rows(tmp_path, make):
    made = open_prepared(make(tmp_path / "toy"))
    train, val, test = (made.split(name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test), test.start) == (20, 0, 4, 20)
    whole = made.images[:]
    for split in (train, val, test):
        assert split.images.shape == (len(split), 8, 8, 3)
        np.testing.assert_array_equal(
            split.images[:], whole[split.start : split.start + len(split)]
        )
    assert made.multilabel is False
    with pytest.raises(DataError, match="split 'extra' is not in the dataset's card"):
        made.split("extra")


@both
def test_a_window_is_read_when_it_is_asked_for(tmp_path, make):
    images = open_prepared(make(tmp_path / "toy")).images
    part = window(images, 4, 9)
    assert isinstance(part, EncodedImages | np.memmap) and len(part) == 5
    np.testing.assert_array_equal(part[:], images[np.arange(4, 9)])


@both
def test_all_pixels_are_those_of_the_rows(tmp_path, make, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)
    train = open_prepared(make(tmp_path / "toy")).split("train").images
    pixels = all_pixels(train, "toy")
    assert type(pixels) is np.ndarray
    np.testing.assert_array_equal(pixels, train[:])


def test_more_pixels_than_memory_are_refused(tmp_path, monkeypatch):
    train = open_prepared(write_encoded(tmp_path / "toy")).split("train").images
    monkeypatch.setattr(module, "MOST_BYTES", train.nbytes - 1)
    with pytest.raises(ConfigError, match=r"datasets\.toy: its 20 encoded images .* smaller size"):
        all_pixels(train, "toy")
    monkeypatch.setattr(module, "MOST_BYTES", train.nbytes)
    assert len(all_pixels(train, "toy")) == 20


def test_labels_of_a_multilabel_dataset(tmp_path):
    artefact = write_dataset(tmp_path / "toy")
    labels = np.eye(3, dtype=np.uint8)[np.arange(24) % 3]
    np.save(artefact.path("labels.npy"), labels)
    with pytest.raises(DataError, match="expected int64 with 1 dimensions"):
        open_prepared(artefact)
    change(artefact, multilabel=True)
    made = open_prepared(artefact)
    assert made.multilabel and made.split("test").labels.shape == (4, 3)
    np.save(artefact.path("labels.npy"), labels[:, :2])
    with pytest.raises(DataError, match=r"labels \(24, 2\) for 24 images"):
        open_prepared(artefact)


@both
@pytest.mark.parametrize("name", ["images", "labels.npy", "card.json"])
def test_damaged_files_are_named(tmp_path, make, name):
    artefact = make(tmp_path / "toy")
    name = next(key for key in artefact.subjects if key.startswith(name))
    path = artefact.path(name)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        open_prepared(artefact)


@both
def test_labels_for_other_images(tmp_path, make):
    artefact = make(tmp_path / "toy")
    np.save(artefact.path("labels.npy"), np.zeros(7, np.int64))
    with pytest.raises(DataError, match=r"labels\.npy: labels \(7,\) for 24 images"):
        open_prepared(artefact)


@pytest.mark.parametrize("card", [[], 3, "x"])
def test_a_card_that_is_none(tmp_path, card):
    artefact = write_dataset(tmp_path / "toy")
    artefact.path("card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match=r"card\.json: no card"):
        open_prepared(artefact)


def test_an_encoded_card_needs_the_size(tmp_path):
    artefact = write_encoded(tmp_path / "toy")
    change(artefact, size=None)
    with pytest.raises(DataError, match=r"card\.json: gives no size and resize"):
        open_prepared(artefact)


def test_arrays_of_another_shape(tmp_path):
    artefact = write_dataset(tmp_path / "toy")
    np.save(artefact.path("images.npy"), np.zeros((24, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 \(N, H, W, 3\), found uint8 \(24, 8, 8\)"):
        open_prepared(artefact)
