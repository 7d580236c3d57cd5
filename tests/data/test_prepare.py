"""prepare-dataset: order, statistics, bounded blocks, both storages, and inputs that do not fit."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clsp.config.schema import DatasetSpec, FetchSpec
from clsp.data import decoders, prepare, ready
from clsp.data.card import describe, labels_array
from clsp.data.catalog import UNLABELLED, Item, Source
from clsp.data.prepared import open_prepared
from clsp.data.statistics import ArrayDigest, ChannelSums
from clsp.runtime.canonical import sha256_array
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact, write_manifest

DIGITS = DatasetSpec(kind="digits", size=8, test_fraction=0.25, seed=0)
MINIATURE = DatasetSpec(kind="dtd", size=8, source="miniature", seed=0)
FOUR = DIGITS.model_copy(update={"size": 4})


def items_of(images, label=0):
    return [Item(lambda image=image: image, label, f"{n}") for n, image in enumerate(images)]


def noise(count, size=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_decoding_keeps_the_order_over_blocks(monkeypatch):
    monkeypatch.setattr(ready, "BLOCK", 7)
    images = noise(50)
    blocks = list(ready.ready_blocks(items_of(images), FOUR))
    assert max(len(block) for block in blocks) == 7
    np.testing.assert_array_equal([r.pixels for block in blocks for r in block], images)


def test_sums_equal_numpys_statistics_for_any_blocking():
    images = noise(30)
    whole, parts = ChannelSums(), ChannelSums()
    whole.add(images)
    for start in range(0, 30, 4):
        parts.add(images[start : start + 4])
    assert (whole.mean(), whole.std()) == (parts.mean(), parts.std())
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(whole.mean(), scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(whole.std(), scaled.std((0, 1, 2)), rtol=1e-12)


def test_sums_do_not_overflow():
    sums = ChannelSums()
    sums.add(np.full((1, 1, 1, 3), 255, np.uint8))
    # As if 50 million images of 224 x 224 had been added.
    sums.pixels, sums.sums, sums.squares = (
        v * 2_500_000_000_000 for v in (1, sums.sums, sums.squares)
    )
    assert sums.mean() == [1.0] * 3 and sums.std() == [0.0] * 3


def test_the_digest_of_blocks_is_that_of_the_array():
    images, digest = noise(9), ArrayDigest((9, 4, 4, 3))
    for start in (0, 4, 8):
        digest.add(images[start : start + 4])
    assert digest.hexdigest() == sha256_array(images)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split(split):
    splits = {"train": items_of(noise(2)), "val": [], "test": items_of(noise(2))}
    with pytest.raises(DataError, match=f"no images in {split}"):
        prepare.select(Source(("a",), {**splits, split: []}), None)


@pytest.mark.parametrize("label", [1, (0, 1)])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_training_images(split, label):
    splits = {"train": items_of(noise(2)), "val": [], "test": items_of(noise(2))}
    splits[split] = [*splits[split], *items_of(noise(1), label)]
    with pytest.raises(DataError, match=f"class 'b' is in {split} but has no training images"):
        prepare.select(Source(("a", "b"), splits), None)


def test_only_training_images_may_lack_a_label():
    splits = {"train": items_of(noise(2)), "val": [], "test": items_of(noise(2))}
    splits["train"] += items_of(noise(3), UNLABELLED)
    assert len(prepare.select(Source(("a",), splits), None)["train"]) == 5
    nothing = {**splits, "train": items_of(noise(3), UNLABELLED)}
    assert len(prepare.select(Source(("a",), nothing), None)["test"]) == 2
    splits["test"] += items_of(noise(1), UNLABELLED)
    with pytest.raises(DataError, match="test has images without a label"):
        prepare.select(Source(("a",), splits), None)


def test_unlabelled_images_count_in_no_class():
    splits = {"train": [*items_of(noise(2)), *items_of(noise(3), UNLABELLED)], "val": []}
    source = Source(("a",), {**splits, "test": items_of(noise(2))}, drawing="by hand")
    chosen = prepare.select(source, None)
    labels = labels_array(chosen, source)
    assert labels.dtype == np.int64 and labels.tolist() == [0, 0, -1, -1, -1, 0, 0]
    card = describe(FOUR, source, chosen, labels)
    assert card["unlabelled"] == 3 and card["counts"] == {"train": [2], "val": [0], "test": [2]}
    assert card["splits"] == {"train": [0, 5], "val": [5, 5], "test": [5, 7]}
    assert card["drawing"] == "by hand" and card["multilabel"] is False


def test_labels_of_images_that_show_several_classes():
    train = [Item(noise, labels, str(labels)) for labels in [(0, 2), (1,), (0, 1, 2)]]
    source = Source(("a", "b", "c"), {"train": train, "val": [], "test": train[:1]}, "", True)
    chosen = prepare.select(source, None)
    labels = labels_array(chosen, source)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 0, 1]]
    card = describe(FOUR, source, chosen, labels)
    assert card["multilabel"] is True and card["unlabelled"] == 0
    assert card["counts"] == {"train": [2, 2, 2], "val": [0, 0, 0], "test": [1, 0, 1]}


def fetched(spec, stage="fetch-dataset"):
    made = FetchSpec.behind(spec).canonical()
    predicate = {"step": stage, "externalParameters": {"spec": made}}
    statement = {"subject": [{"name": "files/x"}], "predicate": predicate}
    return Artefact(Path("raw/manifest.json"), statement)


def names_of(spec):
    images = "images.arrow" if spec.encoded else "images.npy"
    return images, "labels.npy", "items.csv", "card.json"


def run(spec, raw, tmp_path):
    return prepare.prepare_dataset(spec, raw, *(tmp_path / name for name in names_of(spec)))


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


def opened(spec, folder):
    """Prepare into a folder and open the result."""
    folder.mkdir(exist_ok=True)
    run(spec, [], folder)
    predicate = {"step": "prepare-dataset", "externalParameters": {"spec": spec.canonical()}}
    outputs = {name: folder / name for name in names_of(spec)}
    return open_prepared(write_manifest(folder / "manifest.json", outputs, [], predicate))


@pytest.mark.parametrize("storage", ["arrays", "encoded"])
def test_digits_are_the_same_every_time(tmp_path, monkeypatch, storage):
    spec = DIGITS.model_copy(update={"storage": storage})
    first, second = tmp_path / "a", tmp_path / "b"
    for number, folder in enumerate((first, second)):
        folder.mkdir()
        np.random.seed(number)
        monkeypatch.setenv(decoders.VARIABLE, str(1 + 3 * number))
        outcome = run(spec, [], folder)
    assert outcome.counters == {"images": 1797, "classes": 10}
    for name in names_of(spec):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with open(first / "items.csv", newline="") as stream:
        assert len({row["stored"] for row in csv.DictReader(stream)}) == 1797


@pytest.fixture
def photos(tmp_path):
    """A folder of photos of several sizes and formats, one of them turned by its EXIF data."""
    generator = np.random.default_rng(3)
    for number in range(16):
        folder = tmp_path / "photos" / ("train" if number < 10 else "test") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        height, width = (int(n) for n in generator.integers(9, 40, 2))
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ending = ("jpg", "png", "bmp")[number % 3]
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 0 else 1
        options = {"exif": exif} if ending == "jpg" else {}
        Image.fromarray(pixels).save(folder / f"{number:02d}.{ending}", **options)
    return str(tmp_path / "photos")


def test_both_storages_hold_the_same_dataset(tmp_path, photos):
    spec = DatasetSpec(kind="image_folder", size=8, resize=10, root=photos)
    arrays = opened(spec, tmp_path / "arrays")
    encoded = opened(spec.model_copy(update={"storage": "encoded"}), tmp_path / "encoded")
    assert isinstance(arrays.images, np.memmap)
    np.testing.assert_array_equal(arrays.images, encoded.images[:])
    np.testing.assert_array_equal(arrays.labels, encoded.labels)
    differ = {key for key in arrays.card if arrays.card[key] != encoded.card[key]}
    assert differ == {"storage"} and arrays.card["resize"] == 10
    lines = [(tmp_path / name / "items.csv").read_text() for name in ("arrays", "encoded")]
    assert lines[0] == lines[1]


def test_another_size_has_the_same_sources(tmp_path, photos):
    small = opened(DatasetSpec(kind="image_folder", size=4, root=photos), tmp_path / "small")
    large = opened(DatasetSpec(kind="image_folder", size=9, root=photos), tmp_path / "large")
    assert small.card["source_sha256"] == large.card["source_sha256"]
    assert small.card["images_sha256"] != large.card["images_sha256"]


def test_every_row_is_listed_with_its_digests(tmp_path, photos):
    spec = DatasetSpec(kind="image_folder", size=8, root=photos)
    prepared = opened(spec, tmp_path / "out")
    with open(tmp_path / "out/items.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["split", "name", "label", "source", "stored"]
    assert [row["split"] for row in rows] == ["train"] * 10 + ["test"] * 6
    assert rows[0]["name"].startswith("train/a/") and [int(r["label"]) for r in rows] == list(
        prepared.labels
    )
    for row, image in zip(rows, prepared.images, strict=True):
        assert row["stored"] == hashlib.sha256(image.tobytes()).hexdigest()[:32]
        if not row["name"].endswith("00.jpg"):
            with Image.open(Path(photos) / row["name"]) as shown:
                whole = np.asarray(shown.convert("RGB"))
            assert row["source"] == hashlib.sha256(whole.tobytes()).hexdigest()[:32]
    train = rows[:10]
    listed = "".join(f"{row['name']}\n" for row in train).encode()
    assert prepared.card["items_sha256"]["train"] == hashlib.sha256(listed).hexdigest()
    sources = "".join(f"{row['source']}\n" for row in train).encode()
    assert prepared.card["source_sha256"] == hashlib.sha256(sources).hexdigest()


@pytest.mark.parametrize("storage", ["arrays", "encoded"])
def test_a_broken_image_is_named(tmp_path, photos, storage):
    path = next(Path(photos).rglob("04.png"))
    path.write_bytes(path.read_bytes()[:60])
    spec = DatasetSpec(kind="image_folder", size=8, root=photos, storage=storage)
    with pytest.raises(DataError, match=r"04\.png: not a readable image"):
        run(spec, [], tmp_path)
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize("storage", [None, "encoded"])
@pytest.mark.parametrize("full", ["images", "labels", "items"])
def test_a_full_disk_names_the_file(tmp_path, monkeypatch, storage, full):
    monkeypatch.chdir(tmp_path)
    places = {name: tmp_path / name for name in ("images", "labels", "items", "card")}
    places[full] = Path("full.npy")
    places[full].symlink_to("/dev/full")
    spec = DIGITS.model_copy(update={"storage": storage})
    with pytest.raises(DataError, match=r"^full\.npy: cannot be written \(.*No space left"):
        prepare.prepare_dataset(spec, [], **places)


def test_the_card_is_strict_json(tmp_path):
    run(DIGITS, [], tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["storage"] == "arrays" and card["resize"] is None and card["unlabelled"] == 0
    assert card["items_sha256"].keys() == {"train", "val", "test"}
