"""prepare-dataset: order, statistics, bounded blocks, and inputs that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from clsp.config.schema import DatasetSpec
from clsp.data import prepare
from clsp.data.catalog import Item, Source
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact

DIGITS = DatasetSpec(kind="digits", size=8, test_fraction=0.25, seed=0)
MINIATURE = DatasetSpec(kind="dtd", size=8, source="miniature", seed=0)


def items_of(images, label=0):
    return [Item(lambda image=image: image, label) for image in images]


def noise(count, size=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_decoding_keeps_the_order_over_blocks(monkeypatch):
    monkeypatch.setattr(prepare, "BLOCK", 7)
    images = noise(50)
    blocks = list(prepare.decoded(items_of(images), 4))
    assert max(len(block) for block in blocks) == 7
    np.testing.assert_array_equal(np.concatenate(blocks), images)


def test_sums_equal_numpys_statistics_for_any_blocking():
    images = noise(30)
    whole, parts = prepare.ChannelSums(), prepare.ChannelSums()
    whole.add(images)
    for start in range(0, 30, 4):
        parts.add(images[start : start + 4])
    assert (whole.mean(), whole.std()) == (parts.mean(), parts.std())
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(whole.mean(), scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(whole.std(), scaled.std((0, 1, 2)), rtol=1e-12)


def test_sums_do_not_overflow():
    sums = prepare.ChannelSums()
    sums.add(np.full((1, 1, 1, 3), 255, np.uint8))
    # As if 50 million images of 224 x 224 had been added.
    sums.pixels, sums.sums, sums.squares = (
        v * 2_500_000_000_000 for v in (1, sums.sums, sums.squares)
    )
    assert sums.mean() == [1.0] * 3 and sums.std() == [0.0] * 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split(split):
    splits = {"train": items_of(noise(2)), "val": [], "test": items_of(noise(2))}
    with pytest.raises(DataError, match=f"no images in {split}"):
        prepare._select(Source(("a",), {**splits, split: []}), None)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_training_images(split):
    splits = {"train": items_of(noise(2)), "val": [], "test": items_of(noise(2))}
    splits[split] = [*splits[split], *items_of(noise(1), label=1)]
    with pytest.raises(DataError, match=f"class 'b' is in {split} but has no training images"):
        prepare._select(Source(("a", "b"), splits), None)


def fetched(spec, stage="fetch-dataset"):
    predicate = {"step": stage, "externalParameters": {"spec": spec.canonical()}}
    statement = {"subject": [{"name": "files/x"}], "predicate": predicate}
    return Artefact(Path("raw/manifest.json"), statement)


def run(spec, raw, tmp_path):
    names = ("images.npy", "labels.npy", "card.json")
    return prepare.prepare_dataset(spec, raw, *(tmp_path / name for name in names))


def test_raw_files_where_none_are_read(tmp_path):
    with pytest.raises(ConfigError, match='kind "digits" reads no fetched files'):
        run(DIGITS, [fetched(MINIATURE)], tmp_path)


@pytest.mark.parametrize("raw", [[], [fetched(MINIATURE, "gather-bank")]])
def test_raw_files_that_are_needed(raw, tmp_path):
    with pytest.raises(ConfigError, match='kind "dtd" needs one artefact of fetch-dataset'):
        run(MINIATURE, raw, tmp_path)


def test_raw_files_of_another_dataset(tmp_path):
    other = MINIATURE.model_copy(update={"options": {"source": "miniature", "seed": 1}})
    with pytest.raises(DataError, match="belongs to another dataset"):
        run(MINIATURE, [fetched(other)], tmp_path)


def test_digits_are_the_same_every_time(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        np.random.seed(len(folder.name))
        outcome = run(DIGITS, [], folder)
    assert outcome.counters == {"images": 1797, "classes": 10}
    for name in ("images.npy", "labels.npy", "card.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    images = np.load(first / "images.npy", mmap_mode="r", allow_pickle=False)
    assert images.shape == (1797, 8, 8, 3)
    assert len({image.tobytes() for image in images}) == 1797
